#pragma once

/// \file
/// Causal grouped-query attention on the GPU: which kernels run on which grids. Everything that the grids depend on is
/// known to the host, so nothing waits for the device. Each number has one owner that sums in a fixed order: a call
/// gives the same bits whenever it is repeated.
///
/// Keys and values may be kept as bf16 while everything else is float; head dimensions are compiled in.

#include <atmanrl/cuda/attention_append.cuh>
#include <atmanrl/cuda/attention_by_keys.cuh>
#include <atmanrl/cuda/attention_forward.cuh>
#include <atmanrl/cuda/attention_parameters.cuh>
#include <atmanrl/cuda/attention_scratch.cuh>
#include <atmanrl/cuda/attention_tile_choice.cuh>
#include <atmanrl/cuda/launch.cuh>
#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/skinny.cuh>

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::attention<cuda_backend> {
  template <class T, class K, class Params>
  static void forward(cuda_runtime& runtime, attention_extents const& e, view<T const, 3, device_space> qkv,
                      view<K const, 3, device_space> keys, view<K const, 3, device_space> values,
                      attention_plan<device_space> const& plan, Params params, T const* parameters,
                      view<T, 3, device_space> out, view<T, 2, device_space> lse,
                      view<bf16, 3, device_space> factor = {}) {
    if (qkv.extent(0) == 0) return;
    expects_whole_accesses(qkv.data(), keys.data(), values.data(), out.data(), factor.data());
    auto const in = cuda::inputs_of(e, qkv, keys, values, plan);
    results<T> const to{out.data(), lse.data(), factor.data(), lse.size()};
    for_head_dim(e.head_dim, [&](auto dim) {
      auto const with = [&]<class Tile>(std::type_identity<Tile>) {
        forward_with<Tile>(runtime, e, cuda::size_of(plan, qkv.extent(0)), in, params, parameters, to);
      };
      if constexpr (cuda::bf16_products_fit<T, dim, Params>)
        if (cuda::takes_bf16_products<T, dim>(e, in, params))
          return bf16_forward_with<cuda::bf16_tile<dim>>(runtime, e, cuda::size_of(plan, qkv.extent(0)), in, params,
                                                         parameters, to);
      if (cuda::few_queries(in))
        with(std::type_identity<cuda::narrow_tile<T, dim>>{});
      else
        cuda::with_wide_tile<T, dim, cuda::forward_memory<K>>(runtime, in, with);
    });
  }

  template <class T, class K, class Params>
  static void backward(cuda_runtime& runtime, attention_extents const& e, view<T const, 3, device_space> qkv,
                       view<K const, 3, device_space> keys, view<K const, 3, device_space> values,
                       attention_plan<device_space> const& plan, Params params, T const* parameters,
                       view<T const, 3, device_space> out, view<T const, 2, device_space> lse,
                       view<T const, 3, device_space> dout, view<T, 3, device_space> dqkv,
                       view<T, 2, device_space> dparameters) {
    static_assert(!has_row_min<Params>, "atmanrl: an edit that looks at the row's smallest score has no backward pass");
    if (qkv.extent(0) == 0) return;
    expects_whole_accesses(qkv.data(), keys.data(), values.data(), out.data(), dout.data(), dqkv.data());
    if constexpr (has_parameters<Params>)
      expects<usage_error>(dparameters.empty() || dparameters.extent(1) <= std::numeric_limits<int>::max(),
                           "{} parameters of an attention edit, but the kernels count up to {}", dparameters.extent(1),
                           std::numeric_limits<int>::max());
    auto const in = cuda::inputs_of(e, qkv, keys, values, plan);
    auto const size = cuda::size_of(plan, qkv.extent(0));
    cuda::attention_gradients<T> const gradients{out, dout, lse, nullptr, dqkv};
    for_head_dim(e.head_dim, [&](auto dim) {
      if constexpr (cuda::bf16_products_fit<T, dim, Params>)
        if (cuda::takes_bf16_products<T, dim>(e, in, params))
          return bf16_backward_with<dim>(runtime, e, size, in, params, parameters, gradients, dparameters);
      cuda::with_wide_tile<T, dim, cuda::backward_memory<K, Params>>(
          runtime, in, [&]<class Tile>(std::type_identity<Tile>) {
            backward_with<Tile>(runtime, e, size, in, params, parameters, gradients, dparameters);
          });
    });
  }

  /// Bytes of scratch of a pass over floats, at most, without cuda_options::skinny_products.
  static std::size_t scratch_bytes(attention_extents const& e, attention_pass_size const& size, bool backward) {
    auto const bytes = [&](int tile_rows) {
      cuda::query_cut const cut = cuda::cut_of(e, size, tile_rows);
      return sizeof(float) *
             std::size_t(backward ? cuda::backward_scratch(e, size, cut).all() : cuda::forward_scratch(e, size, cut));
    };
    bool const few = size.most_rows * e.group() <= cuda::few_pairs;
    if (few && !backward) return bytes(cuda::few_pairs);
    bool const bf16 = e.bf16_weights && !few && e.head_dim >= 16 && e.group() <= 16;
    return std::max(bytes(64), bf16 ? bytes(cuda::bf16_pairs(e)) : 0);  // an edit decides which
  }

  template <class T, class K>
  static void append(cuda_runtime& runtime, attention_extents const& e, view<T const, 3, device_space> qkv,
                     view<int const, 1, device_space> cache_rows, view<K, 3, device_space> keys,
                     view<K, 3, device_space> values) {
    expects_whole_accesses(qkv.data(), keys.data(), values.data());
    index_t const width = e.kv_heads * e.head_dim, accesses = qkv.extent(0) * width / cuda::vector_width<T>;
    expects<usage_error>(e.head_dim % cuda::vector_width<T> == 0, "head dimension {} is not a multiple of {}",
                         e.head_dim, cuda::vector_width<T>);
    cuda::launch("attention_append", &cuda::attention_append_kernel<T, K>,
                 {cuda::blocks_for(accesses, cuda::append_threads), 2}, cuda::append_threads, 0, runtime.stream(), qkv,
                 e.heads * e.head_dim, width, cache_rows.data(), keys.data(), values.data());
  }

 private:
  static constexpr int head_dims = ATMANRL_CUDA_HEAD_DIMS;
  static_assert(head_dims > 0 && (head_dims & ~(8 + 16 + 32 + 64 + 128)) == 0,
                "atmanrl: ATMANRL_CUDA_HEAD_DIMS is a sum of some of 8, 16, 32, 64 and 128");

  template <int Dim = 8, class F>
  static void for_head_dim(index_t dim, F const& f) {
    if constexpr (Dim <= 128) {
      if constexpr ((head_dims & Dim) != 0)
        if (dim == Dim) return f(std::integral_constant<int, Dim>{});
      for_head_dim<2 * Dim>(dim, f);
    } else {
      std::vector<int> known;
      for (int d = 8; d <= 128; d *= 2)
        if ((head_dims & d) != 0) known.push_back(d);
      throw usage_error(fmt::format("the CUDA attention kernels are compiled for head dimension{} {}, not {}",
                                    known.size() == 1 ? "" : "s", fmt::join(known, ", "), dim));
    }
  }

  static void expects_whole_accesses(auto const*... rows) {
    expects<usage_error>(((reinterpret_cast<std::uintptr_t>(rows) % 16 == 0) && ...),
                         "the CUDA attention kernels read 16 bytes at a time, but a view begins between them");
  }

  // So many tiles of each of the plan's sequences.
  static unsigned blocks(auto const& in, int tiles) { return unsigned(in.sequences.extent(0)) * unsigned(tiles); }

  /// Where the forward pass writes; `out` or `factor` may be null.
  template <class T>
  struct results {
    T *out, *lse;
    bf16* factor;
    index_t row_heads;  ///< rows times heads
  };

  // Rows whose products depend on no other row are cut so, too.
  static cuda::query_cut forward_cut(cuda_runtime const& runtime, attention_extents const& e,
                                     attention_pass_size const& size, int tile_rows) {
    return cuda::cut_of(e, size, tile_rows,
                        runtime.options().skinny_products && e.bf16_weights && size.rows <= cuda::skinny_rows);
  }

  template <class Tile, class T, class K, class Params>
  static void forward_with(cuda_runtime& runtime, attention_extents const& e, attention_pass_size const& size,
                           cuda::attention_inputs<T, K> const& in, Params const& params, T const* parameters,
                           results<T> const& to) {
    cuda::query_cut cut = forward_cut(runtime, e, size, Tile::rows);
    if constexpr (has_row_min<Params>) cut.parts = 1;  // a row's smallest score is that of all its keys
    merged<Tile::dim>(runtime, e, size, cut, to, [&](results<T> const& of_parts) {
      cuda::launch("attention_forward", &cuda::attention_forward_kernel<Tile, K, Params>,
                   {blocks(in, cut.tiles) * unsigned(cut.parts), unsigned(in.kv_heads)}, Tile::threads,
                   cuda::forward_shared_bytes<Tile, K>(), runtime.stream(), in, params, parameters, cut, of_parts.out,
                   of_parts.lse, of_parts.factor);
    });
  }
  template <class Tile, class K, class Params>
  static void bf16_forward_with(cuda_runtime& runtime, attention_extents const& e, attention_pass_size const& size,
                                cuda::attention_inputs<float, K> const& in, Params const& params,
                                float const* parameters, results<float> const& to) {
    cuda::query_cut const cut = forward_cut(runtime, e, size, cuda::bf16_pairs(e));
    merged<Tile::dim>(runtime, e, size, cut, to, [&](results<float> const& of_parts) {
      cuda::launch("attention_bf16_forward", &cuda::attention_bf16_forward_kernel<Tile, K, Params>,
                   {blocks(in, cut.tiles) * unsigned(cut.parts), unsigned(in.kv_heads)}, Tile::threads,
                   cuda::bf16_forward_shared_bytes<Tile>(), runtime.stream(), in, params, parameters, cut, of_parts.out,
                   of_parts.lse, of_parts.factor);
    });
  }
  // Calls run(results) with memory for all parts, and merges them.
  template <int Dim, class T, class Run>
  static void merged(cuda_runtime& runtime, attention_extents const& e, attention_pass_size const& size,
                     cuda::query_cut const& cut, results<T> const& to, Run const& run) {
    if (cut.parts == 1) return run(to);
    T* const part_out = runtime.scratch<T>(cuda::forward_scratch(e, size, cut));
    T* const part_lse = part_out + cut.parts * to.row_heads * Dim;
    run(results<T>{part_out, part_lse, nullptr, to.row_heads});
    cuda::launch("attention_merge", &cuda::attention_merge_kernel<T, Dim>, unsigned(to.row_heads), std::max(32, Dim), 0,
                 runtime.stream(), cut.parts, to.row_heads, part_out, part_lse, to.out, to.lse, to.factor);
  }

  // How a backward pass over floats is cut into blocks, and the memory between its kernels.
  template <class T>
  struct backward_cuts {
    backward_cuts(cuda_runtime& runtime, attention_extents const& e, attention_pass_size const& size, int query_rows,
                  int key_rows, cuda::attention_gradients<T>& g)
        : queries(cuda::cut_of(e, size, query_rows)) {
      cuda::backward_scratch const scratch(e, size, queries);
      g.corrections = runtime.scratch<T>(scratch.all());
      T* const after = g.corrections + scratch.corrections;
      part_dq = scratch.query_sums > 0 ? after : nullptr;
      keys = {int(cuda::blocks_for(size.most_rows, key_rows)), cuda::viewer_parts(size),
              scratch.viewer_sums > 0 ? after : nullptr};
    }
    cuda::query_cut queries;
    cuda::key_cut<T> keys;
    T* part_dq;
  };
  static constexpr index_t each_adds(auto one) { return cuda::add_threads * cuda::vector_width<decltype(one)>; }

  template <class T, class K>
  static void add_parts(cuda_runtime& runtime, cuda::attention_inputs<T, K> const& in, backward_cuts<T> const& cuts,
                        index_t dim, cuda::attention_gradients<T> const& g) {
    if (cuts.queries.parts == 1) return;
    index_t const width = in.heads * dim;
    cuda::launch("attention_add_parts", &cuda::attention_add_parts_kernel<T>,
                 cuda::blocks_for(in.qkv.extent(0) * width, each_adds(T{})), cuda::add_threads, 0, runtime.stream(),
                 cuts.queries.parts, width, static_cast<T const*>(cuts.part_dq), g.dqkv);
  }
  // With `in` of the kernel by keys.
  template <class T, class K>
  static void add_viewers(cuda_runtime& runtime, cuda::attention_inputs<T, K> const& in, backward_cuts<T> const& cuts,
                          attention_pass_size const& size, int dim, cuda::attention_gradients<T> const& g) {
    if (cuts.keys.parts == 1) return;
    int const key_row = 2 * in.kv_heads * dim;
    cuda::launch("attention_add_viewers", &cuda::attention_add_viewers_kernel<T>,
                 {cuda::blocks_for(size.longest_root * key_row, each_adds(T{})), unsigned(size.trees)},
                 cuda::add_threads, 0, runtime.stream(), in.sequences, in.trees, in.most_rows, cuts.keys,
                 index_t(in.heads) * dim, key_row, g.dqkv);
  }
  // Of the kernel by keys: tiles of all sequences, and those that take parts of the viewers of trees' first ones.
  static dim3 blocks_by_keys(auto const& in, auto const& cut, attention_pass_size const& size) {
    return {blocks(in, cut.tiles) + unsigned(size.trees) * unsigned(cut.tiles * (cut.parts - 1)),
            unsigned(in.kv_heads)};
  }

  template <int Dim, class K, class Params>
  static void bf16_backward_with(cuda_runtime& runtime, attention_extents const& e, attention_pass_size const& size,
                                 cuda::attention_inputs<float, K> const& in, Params const& params,
                                 float const* parameters, cuda::attention_gradients<float> g,
                                 view<float, 2, device_space> dparameters) {
    using by_queries = cuda::bf16_tile<Dim>;
    using by_keys = cuda::bf16_key_tile<Dim>;
    backward_cuts<float> const cuts(runtime, e, size, cuda::bf16_pairs(e), by_keys::rows, g);
    auto in_by_keys = in;
    in_by_keys.most_rows = int(size.longest_root);  // only sums of trees' first sequences ask for it there

    cuda::launch("attention_bf16_by_queries", &cuda::attention_bf16_by_queries_kernel<by_queries, K, Params>,
                 {blocks(in, cuts.queries.tiles) * unsigned(cuts.queries.parts), unsigned(in.kv_heads)},
                 by_queries::threads, cuda::bf16_by_queries_shared_bytes<by_queries>(), runtime.stream(), in, params,
                 parameters, cuts.queries, g, cuts.part_dq, dparameters);
    add_parts(runtime, in, cuts, Dim, g);
    cuda::launch("attention_bf16_by_keys", &cuda::attention_bf16_by_keys_kernel<by_keys, K, Params>,
                 blocks_by_keys(in, cuts.keys, size), by_keys::threads, cuda::bf16_by_keys_shared_bytes<by_keys>(),
                 runtime.stream(), in_by_keys, params, parameters, cuts.keys, g);
    add_viewers(runtime, in_by_keys, cuts, size, Dim, g);
  }

  template <class Tile, class T, class K, class Params>
  static void backward_with(cuda_runtime& runtime, attention_extents const& e, attention_pass_size const& size,
                            cuda::attention_inputs<T, K> const& in, Params const& params, T const* parameters,
                            cuda::attention_gradients<T> g, view<T, 2, device_space> dparameters) {
    unsigned const kv_heads = unsigned(in.kv_heads);
    backward_cuts<T> const cuts(runtime, e, size, Tile::rows, Tile::rows, g);
    auto in_by_keys = in;
    in_by_keys.most_rows = int(size.longest_root);  // only sums of trees' first sequences ask for it there

    cuda::launch("attention_by_queries", &cuda::attention_by_queries_kernel<Tile, K, Params>,
                 {blocks(in, cuts.queries.tiles) * unsigned(cuts.queries.parts), kv_heads}, Tile::threads,
                 cuda::by_queries_shared_bytes<Tile, K>(), runtime.stream(), in, params, parameters, cuts.queries, g,
                 cuts.part_dq);
    add_parts(runtime, in, cuts, Tile::dim, g);
    cuda::launch("attention_by_keys", &cuda::attention_by_keys_kernel<Tile, K, Params, cuda::key_rows::fresh>,
                 blocks_by_keys(in, cuts.keys, size), Tile::threads, cuda::by_keys_shared_bytes<Tile, K, Params>(),
                 runtime.stream(), in_by_keys, params, parameters, cuts.keys, g, dparameters);
    add_viewers(runtime, in_by_keys, cuts, size, Tile::dim, g);
    if constexpr (cuda::owned_by_keys<Params>) {
      if (dparameters.empty()) return;
      int const cached_tiles = int(cuda::blocks_for(size.longest - 1, Tile::rows));  // a row's own key is new
      cuda::launch("attention_by_cached_keys", &cuda::attention_by_keys_kernel<Tile, K, Params, cuda::key_rows::cached>,
                   {blocks(in, cached_tiles), kv_heads}, Tile::threads, cuda::by_keys_shared_bytes<Tile, K, Params>(),
                   runtime.stream(), in, params, parameters, cuda::key_cut<T>{cached_tiles, 1, nullptr}, g,
                   dparameters);
    } else if constexpr (has_parameters<Params>) {
      if (dparameters.empty()) return;
      constexpr bool all = !atmanrl::detail::separates_sequences<Params>;
      cuda::launch("attention_parameters", &cuda::attention_parameters_kernel<Tile, K, Params>,
                   {kv_heads, all ? 1u : unsigned(in.sequences.extent(0))}, Tile::threads,
                   cuda::parameters_shared_bytes<Tile, K>(), runtime.stream(), in, params, parameters, all, g,
                   dparameters);
    }
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
