#pragma once

/// \file
/// What the parts of a block ask of a machine in one call: operations and bytes, counted as experiment/work.hpp says.

#include <atmanrl/core/error.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/nn/any_block.hpp>
#include <atmanrl/nn/parts/activations.hpp>
#include <atmanrl/nn/parts/head_rms_norm.hpp>
#include <atmanrl/nn/parts/norms.hpp>
#include <atmanrl/nn/parts/query_key.hpp>

#include <tuple>

namespace atmanrl {

struct work {
  double operations = 0, bytes = 0;

  work& operator+=(work const& o) {
    operations += o.operations;
    bytes += o.bytes;
    return *this;
  }
  friend work operator+(work a, work const& b) { return a += b; }
  friend work operator*(double n, work const& w) { return {n * w.operations, n * w.bytes}; }
};

/// Rows that one call of a part of a block works on.
struct part_rows {
  model_config const& config;
  index_t layer;
  double rows;
  double scalar_bytes;  ///< of activations and gains
  double result_bytes;  ///< of what it makes: a product's factor where one follows, else scalars
  double factor_bytes;  ///< of the factor that a product behind it takes, beside its result in scalars; 0: none

  bool makes_factors() const { return result_bytes != scalar_bytes; }
};

template <class Part>
struct part_work;

namespace detail {
/// Queries, keys and values of the rows.
inline double qkv_numbers(part_rows const& r) {
  return r.rows * double((r.config.heads + 2 * r.config.kv_heads) * r.config.head_dim);
}
/// A treatment, and keys and values into the cache.
template <class Part>
work work_into_cache(part_rows const& r, work const& append) {
  if constexpr (requires { part_work<Part>::into_cache(r, append); })
    return part_work<Part>::into_cache(r, append);
  else
    return part_work<Part>::forward(r) + append;
}
/// The way back to what the product before a treatment takes: in place, and in a pass more where that are no scalars.
template <class Part>
work work_into_factor(part_rows const& r, bool with_parameters) {
  if (!r.makes_factors()) return part_work<Part>::backward(r, with_parameters);
  if constexpr (requires { part_work<Part>::into_factor(r, with_parameters); })
    return part_work<Part>::into_factor(r, with_parameters);
  else
    return part_work<Part>::backward(r, with_parameters) + work{0, (r.scalar_bytes + r.result_bytes) * qkv_numbers(r)};
}
}  // namespace detail

/// What one call of a part of a block does. Specialise it for a part of one's own whose work is to be counted:
/// - of `qk`:          `work forward(part_rows const&)`, `work backward(part_rows const&, bool with_parameters)`, and
///                     where it has such functions `work into_cache(part_rows const&, work const& append)`, of
///                     `forward` with what appends keys and values, and `work into_factor(...)` as `backward`
/// - of `norm`:        the same with the width of a row behind the first argument, and `recompute` as `forward`
/// - of `activation`:  `forward` and `backward` with the width of its result behind the first argument
template <class Part>
struct part_work {
  static_assert(detail::always_false<Part>,
                "atmanrl: the work of this part of a block is not known; specialise atmanrl::part_work for it "
                "(experiment/part_work.hpp)");
};

template <>
struct part_work<nn::rms_norm> {
  static work forward(part_rows const& r, double width) {
    return {4 * r.rows * width, r.scalar_bytes * (r.rows * width + width + r.rows) + r.result_bytes * r.rows * width};
  }
  static work recompute(part_rows const& r, double width) { return {2 * r.rows * width, forward(r, width).bytes}; }
  static work backward(part_rows const& r, double width, bool with_parameters) {
    return {(with_parameters ? 12 : 9) * r.rows * width,
            r.scalar_bytes * (4 * r.rows * width + width + r.rows + (with_parameters ? 2 * width : 0)) +
                r.factor_bytes * r.rows * width};
  }
};

template <>
struct part_work<nn::rms_norm_1p> : part_work<nn::rms_norm> {
  static work forward(part_rows const& r, double width) {
    return part_work<nn::rms_norm>::forward(r, width) + work{width, 3 * r.scalar_bytes * width};  // 1 + g
  }
};

template <>
struct part_work<nn::identity> {
  static work forward(part_rows const&) { return {}; }
  static work backward(part_rows const&, bool) { return {}; }
};

template <>
struct part_work<nn::rope> {
  static work forward(part_rows const& r) {
    if (!r.config.layer(r.layer).rotary) return {};
    double const turned = r.rows * double((r.config.heads + r.config.kv_heads) * r.config.head_dim);
    return {3 * turned, r.scalar_bytes * (2 * turned + r.rows * double(r.config.head_dim)) + 4 * r.rows};
  }
  static work backward(part_rows const& r, bool) { return forward(r); }
  /// Keys do not go back to where they came from, nor are they read there again.
  static work into_cache(part_rows const& r, work const& append) {
    if (!r.config.layer(r.layer).rotary) return append;
    return forward(r) + append + work{0, -2 * r.scalar_bytes * r.rows * double(r.config.kv_heads * r.config.head_dim)};
  }
  static work into_factor(part_rows const& r, bool) {
    work w = forward(r);
    if (w.bytes > 0)
      w.bytes -= 2 * r.scalar_bytes * r.rows * double((r.config.heads + r.config.kv_heads) * r.config.head_dim);
    return w + work{0, (r.scalar_bytes + r.result_bytes) * detail::qkv_numbers(r)};
  }
};

/// Heads are rows of the norm; its columns are copied out of the projection and back.
template <>
struct part_work<nn::head_rms_norm> {
  static work forward(part_rows const& r) {
    return each(r, [&](part_rows const& heads, double dim) {
      return part_work<nn::rms_norm>::forward(heads, dim) + work{0, 4 * r.scalar_bytes * heads.rows * dim};
    });
  }
  static work backward(part_rows const& r, bool with_parameters) {
    return each(r, [&](part_rows const& heads, double dim) {
      return part_work<nn::rms_norm>::backward(heads, dim, with_parameters) +
             work{0, 5 * r.scalar_bytes * heads.rows * dim};
    });
  }

 private:
  template <class F>
  static work each(part_rows const& r, F const& f) {
    auto const of = [&](index_t heads) {
      return f(part_rows{r.config, r.layer, r.rows * double(heads), r.scalar_bytes, r.scalar_bytes, 0},
               double(r.config.head_dim));
    };
    return of(r.config.heads) + of(r.config.kv_heads);
  }
};

template <class... Parts>
struct part_work<nn::in_order<Parts...>> {
  static work forward(part_rows const& r) { return (part_work<Parts>::forward(r) + ... + work{}); }
  static work backward(part_rows const& r, bool with_parameters) {
    return (part_work<Parts>::backward(r, with_parameters) + ... + work{});
  }
  static work into_cache(part_rows const& r, work const& append) {
    return forward(r) + (detail::work_into_cache<last>(r, append) + -1.0 * part_work<last>::forward(r));
  }
  static work into_factor(part_rows const& r, bool with_parameters) {
    return backward(r, with_parameters) + (detail::work_into_factor<first>(r, with_parameters) +
                                           -1.0 * part_work<first>::backward(r, with_parameters));
  }

 private:
  using first = std::tuple_element_t<0, std::tuple<Parts...>>;
  using last = std::tuple_element_t<sizeof...(Parts) - 1, std::tuple<Parts...>>;
};

template <class... Blocks>
struct part_work<detail::any_qk<Blocks...>> {
  static work forward(part_rows const& r) {
    return chosen(r, [&]<class Part>(part_work<Part> const&) { return part_work<Part>::forward(r); });
  }
  static work backward(part_rows const& r, bool with_parameters) {
    return chosen(r, [&]<class Part>(part_work<Part> const&) { return part_work<Part>::backward(r, with_parameters); });
  }
  static work into_cache(part_rows const& r, work const& append) {
    return chosen(r, [&]<class Part>(part_work<Part> const&) { return detail::work_into_cache<Part>(r, append); });
  }
  static work into_factor(part_rows const& r, bool with_parameters) {
    return chosen(
        r, [&]<class Part>(part_work<Part> const&) { return detail::work_into_factor<Part>(r, with_parameters); });
  }

 private:
  template <class F>
  static work chosen(part_rows const& r, F const& f) {
    work sum;
    ((r.config.architecture == Blocks::model_type ? void(sum += f(part_work<typename Blocks::qk>{})) : void()), ...);
    return sum;
  }
};

template <>
struct part_work<nn::swiglu> {
  static work forward(part_rows const& r, double width) {
    return {5 * r.rows * width, (2 * r.scalar_bytes + r.result_bytes) * r.rows * width};
  }
  static work backward(part_rows const& r, double width) {
    return {12 * r.rows * width, (3 * r.scalar_bytes + 2 * r.result_bytes) * r.rows * width};
  }
};

/// Backwards f is called twice with dual numbers, each of whose operations is three, and both slopes are multiplied.
template <class F>
struct part_work<nn::gated<F>> {
  static_assert(
      requires { F::operations; },
      "atmanrl: the work of this activation is not known; it needs `static constexpr int operations`, of one "
      "call of it (nn/parts/activations.hpp)");
  static work forward(part_rows const& r, double width) {
    return {F::operations * r.rows * width, (2 * r.scalar_bytes + r.result_bytes) * r.rows * width};
  }
  static work backward(part_rows const& r, double width) {
    return {(6 * F::operations + 2) * r.rows * width, (3 * r.scalar_bytes + 2 * r.result_bytes) * r.rows * width};
  }
};

}  // namespace atmanrl
