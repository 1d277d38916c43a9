#pragma once

/// \file
/// What happens to queries and keys between their projection and the cache: a block's `qk`.

#include <atmanrl/io/hugging_face_config.hpp>
#include <atmanrl/nn/parts/part.hpp>
#include <atmanrl/ops/matmul_rope_append.hpp>
#include <atmanrl/ops/rope_append.hpp>

#include <tuple>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::nn {

/// Where keys and values of the new rows go.
template <Backend B, class K>
struct cache_target {
  attention_extents const& extents;
  view_on<B, int const, 1> cache_rows;  ///< (rows)
  view_on<B, K, 3> keys, values;        ///< (cache rows, kv_heads, head_dim) of this layer
};

/// Rows of all heads as rows of numbers.
template <Backend B, class T>
view_on<B, T, 2> flat(view_on<B, T, 3> qkv) {
  return qkv.template reshaped<2>({qkv.extent(0), qkv.extent(1) * qkv.extent(2)});
}

/// A treatment, and then keys and values into the cache. A part that does both in one pass has a `forward` that takes
/// the target.
template <class Part, Backend B, class T, class K>
void forward_into_cache(part_call<B, T> const& c, view_on<B, T, 3> qkv, typename Part::template saved<B, T>& s,
                        cache_target<B, K> const& to) {
  if constexpr (requires { Part::template forward<B, T>(c, qkv, s, to); }) {
    Part::template forward<B, T>(c, qkv, s, to);
  } else {
    Part::template forward<B, T>(c, qkv, s);
    append_keys_and_values(c.backend(), to.extents, qkv, to.cache_rows, to.keys, to.values);
  }
}

/// The same of qkv = x Wᵀ. A part that makes one pass of all has a `forward` that takes x and W, too.
template <class Part, Backend B, class T, class W, class K>
void product_into_cache(part_call<B, T> const& c, view_on<B, factor_t<B, W> const, 2> x, weight_view<B, W> w,
                        view_on<B, T, 3> qkv, typename Part::template saved<B, T>& s, cache_target<B, K> const& to) {
  if constexpr (requires { Part::template forward<B, T>(c, x, w, qkv, s, to); }) {
    Part::template forward<B, T>(c, x, w, qkv, s, to);
  } else {
    matmul(c.backend(), x, w, flat<B, T>(qkv));
    forward_into_cache<Part, B, T>(c, qkv, s, to);
  }
}

/// The same of what a linear layer makes of x, which may be more than its product.
template <class Part, Backend B, class T, class W, class K>
void project_into_cache(part_call<B, T> const& c, linear<B, W> const& projection, view_on<B, factor_t<B, W> const, 2> x,
                        view_on<B, T, 3> qkv, typename Part::template saved<B, T>& s, cache_target<B, K> const& to) {
  if constexpr (requires { Part::template forward<B, T>(c, x, projection.weight().view(), qkv, s, to); })
    if (projection.is_product(c.pass))
      return Part::template forward<B, T>(c, x, projection.weight().view(), qkv, s, to);
  projection.forward(c.pass, x, flat<B, T>(qkv));
  forward_into_cache<Part, B, T>(c, qkv, s, to);
}

/// The gradient before a treatment, as products take it. A part that writes such factors in its own pass has a
/// `backward` that takes them.
/// \param dqkv    the gradient after the treatment; undefined afterwards
/// \param factor  (rows, heads + 2 kv_heads, head_dim), overwritten; its scalar is not T
template <class Part, Backend B, class T, class F>
void backward_into_factor(part_call<B, T> const& c, view_on<B, T, 3> dqkv, typename Part::template saved<B, T> const& s,
                          view_on<B, F, 3> factor) {
  if constexpr (requires { Part::template backward<B, T>(c, dqkv, s, factor); }) {
    Part::template backward<B, T>(c, dqkv, s, factor);
  } else {
    Part::template backward<B, T>(c, dqkv, s);
    convert(c.backend(), view_on<B, T const, 1>(dqkv.data(), {dqkv.size()}),
            view_on<B, F, 1>(factor.data(), {factor.size()}));
  }
}

/// Nothing, in any layer: no position code (Kazemnejad et al. 2023, arXiv:2305.19466).
struct identity {
  template <Backend B, class T>
  struct saved {};
  static index_t saved_numbers(model_config const&) { return 0; }
  static void parameters(model_config const&, index_t, parameter_list&) {}

  template <Backend B, class T>
  static void forward(part_call<B, T> const&, view_on<B, T, 3>, saved<B, T>&) {}
  template <Backend B, class T>
  static void backward(part_call<B, T> const&, view_on<B, T, 3>, saved<B, T> const&) {}
};

/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in the layers whose numbers say so.
struct rope {
  template <Backend B, class T>
  struct saved {};
  static index_t saved_numbers(model_config const&) { return 0; }
  static void parameters(model_config const&, index_t, parameter_list&) {}

  /// \param qkv  (rows, heads + 2 kv_heads, head_dim), rotated in place
  template <Backend B, class T>
  static void forward(part_call<B, T> const& c, view_on<B, T, 3> qkv, saved<B, T>&) {
    turn<B, T>(c, qkv, rotation::forward);
  }
  template <Backend B, class T, class K>
  static void forward(part_call<B, T> const& c, view_on<B, T, 3> qkv, saved<B, T>&, cache_target<B, K> const& to) {
    if (c.config.layer(c.layer).rotary)
      rope_and_append(c.backend(), to.extents, qkv, c.positions, c.cosine, c.sine, to.cache_rows, to.keys, to.values);
    else
      append_keys_and_values(c.backend(), to.extents, qkv, to.cache_rows, to.keys, to.values);
  }
  template <Backend B, class T, class W, class K>
  static void forward(part_call<B, T> const& c, view_on<B, factor_t<B, W> const, 2> x, weight_view<B, W> w,
                      view_on<B, T, 3> qkv, saved<B, T>& s, cache_target<B, K> const& to) {
    if (c.config.layer(c.layer).rotary) {
      matmul_rope_and_append(c.backend(), to.extents, x, w, qkv, c.positions, c.cosine, c.sine, to.cache_rows, to.keys,
                             to.values);
    } else {
      matmul(c.backend(), x, w, flat<B, T>(qkv));
      forward<B, T>(c, qkv, s, to);
    }
  }
  /// \param dqkv  the gradient after the rotation; becomes the one before it
  template <Backend B, class T>
  static void backward(part_call<B, T> const& c, view_on<B, T, 3> dqkv, saved<B, T> const&) {
    turn<B, T>(c, dqkv, rotation::inverse);
  }
  template <Backend B, class T, class F>
  static void backward(part_call<B, T> const& c, view_on<B, T, 3> dqkv, saved<B, T> const&, view_on<B, F, 3> factor) {
    index_t const rotated = c.config.layer(c.layer).rotary ? c.config.heads + c.config.kv_heads : 0;
    rope_into(c.backend(), view_on<B, T const, 3>(dqkv), rotated, c.positions, c.cosine, c.sine, rotation::inverse,
              factor);
  }

 private:
  template <Backend B, class T>
  static void turn(part_call<B, T> const& c, view_on<B, T, 3> x, rotation direction) {
    if (c.config.layer(c.layer).rotary)
      atmanrl::rope(c.backend(), x, c.config.heads + c.config.kv_heads, c.positions, c.cosine, c.sine, direction);
  }
};

/// Every `interval`th layer is not rotated.
inline void rotate_all_but_every(index_t interval, model_config& c) {
  c.per_layer.resize(std::size_t(c.layers));
  for (index_t l = 0; l < c.layers; ++l) c.per_layer[std::size_t(l)].rotary = (l + 1) % interval != 0;
}

/// config.json's no_rope_layers, a list of 1 (rotated) and 0, or no_rope_layer_interval, in and out.
inline void read_rotary_layers(atmanrl::detail::config_reader const& in, model_config& c) {
  auto const interval = in.integer("no_rope_layer_interval").value_or(4);
  expects<file_error>(interval >= 1, "{}: no_rope_layer_interval is {} but must be at least 1", in.file(), interval);
  rotate_all_but_every(interval, c);
  json const* const list = in.find("no_rope_layers");
  if (!list) return;
  expects<file_error>(list->is_array() && index_t(list->size()) == c.layers,
                      "{}: no_rope_layers must be a list with a 0 or 1 for each of the {} layers", in.file(), c.layers);
  for (index_t l = 0; l < c.layers; ++l) {
    json const& each = (*list)[std::size_t(l)];
    expects<file_error>(each.is_number_integer() && (each == 0 || each == 1),
                        "{}: no_rope_layers holds something else than 0 and 1 for layer {}", in.file(), l);
    c.per_layer[std::size_t(l)].rotary = each == 1;
  }
}
inline void write_rotary_layers(model_config const& c, json& out) {
  out["no_rope_layers"] = json::array();
  for (index_t l = 0; l < c.layers; ++l) out["no_rope_layers"].push_back(int(c.layer(l).rotary));
}

/// One treatment after the other.
template <class... Parts>
struct in_order {
  template <Backend B, class T>
  using saved = std::tuple<typename Parts::template saved<B, T>...>;
  static index_t saved_numbers(model_config const& c) { return (Parts::saved_numbers(c) + ... + 0); }
  static void parameters(model_config const& c, index_t layer, parameter_list& list) {
    (Parts::parameters(c, layer, list), ...);
  }

  template <Backend B, class T>
  static void forward(part_call<B, T> const& c, view_on<B, T, 3> qkv, saved<B, T>& s) {
    each(c, [&]<std::size_t I>(part_call<B, T> const& mine) {
      part<I>::template forward<B, T>(mine, qkv, std::get<I>(s));
    });
  }
  template <Backend B, class T, class K>
  static void forward(part_call<B, T> const& c, view_on<B, T, 3> qkv, saved<B, T>& s, cache_target<B, K> const& to) {
    each(c, [&]<std::size_t I>(part_call<B, T> const& mine) {
      if constexpr (I + 1 < sizeof...(Parts))
        part<I>::template forward<B, T>(mine, qkv, std::get<I>(s));
      else
        forward_into_cache<part<I>, B, T>(mine, qkv, std::get<I>(s), to);
    });
  }
  template <Backend B, class T>
  static void backward(part_call<B, T> const& c, view_on<B, T, 3> dqkv, saved<B, T> const& s) {
    each_in_reverse(c, [&]<std::size_t I>(part_call<B, T> const& mine) {
      part<I>::template backward<B, T>(mine, dqkv, std::get<I>(s));
    });
  }
  template <Backend B, class T, class F>
  static void backward(part_call<B, T> const& c, view_on<B, T, 3> dqkv, saved<B, T> const& s, view_on<B, F, 3> factor) {
    each_in_reverse(c, [&]<std::size_t I>(part_call<B, T> const& mine) {
      if constexpr (I > 0)
        part<I>::template backward<B, T>(mine, dqkv, std::get<I>(s));
      else
        backward_into_factor<part<I>, B, T>(mine, dqkv, std::get<I>(s), factor);
    });
  }

 private:
  template <std::size_t I>
  using part = std::tuple_element_t<I, std::tuple<Parts...>>;

  // The gains of part I follow those of the parts before it.
  template <std::size_t I, Backend B, class T>
  static part_call<B, T> call_of(part_call<B, T> const& c) {
    std::size_t first = 0, count = 0, at = 0;
    auto const count_gains = [&](auto const& gains_of) {
      parameter_list list;
      gains_of(list);
      std::size_t n = 0;
      for (parameter_spec const& p : list.all()) n += p.role == parameter_role::gain;
      if (at < I) first += n;
      if (at == I) count = n;
      ++at;
    };
    (count_gains([&](parameter_list& list) { Parts::parameters(c.config, c.layer, list); }), ...);
    return {c.pass,
            c.config,
            c.layer,
            c.positions,
            c.cosine,
            c.sine,
            c.gains.subspan(first, count),
            c.gain_offsets.subspan(first, count),
            c.scratch};
  }
  template <Backend B, class T, class F>
  static void each(part_call<B, T> const& c, F&& f) {
    [&]<std::size_t... I>(std::index_sequence<I...>) { (f.template operator()<I>(call_of<I>(c)), ...); }
    (std::index_sequence_for<Parts...>{});
  }
  template <Backend B, class T, class F>
  static void each_in_reverse(part_call<B, T> const& c, F&& f) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (f.template operator()<sizeof...(Parts) - 1 - I>(call_of<sizeof...(Parts) - 1 - I>(c)), ...);
    }
    (std::index_sequence_for<Parts...>{});
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::nn
