// Attention of models with bf16 weights for every head dimension, without an edit and with a learned mask.
#include "cuda/attention_rounded.hpp"
#include "cuda/device_like.hpp"
#include "cuda/thread_orders.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

std::vector<node> several_tiles() { return {{-1, 30, 70, 0}, {0, 0, 41, 1}, {0, 5, 33, 2}, {1, 0, 9, 3}}; }

/// What is computed with the weights' kind left out.
attention_results with_float_weights(cuda_backend& device, tree_problem p) {
  p.extents.bf16_weights = false;
  return on_device<float>(device, p, p.qkv, unedited{});
}

}  // namespace

TEST_CASE(
    "cuda bf16 attention: outputs and gradients are those of rounded factors, for every head dimension and group") {
  cuda_backend device;
  for (heads const h : {heads{1, 1, 64}, heads{4, 2, 64}, heads{3, 1, 128}, heads{8, 1, 32}, heads{4, 1, 128}}) {
    CAPTURE(h.query, h.kv, h.dim);
    for (auto const& tree : {several_tiles(), decoding(130, 20), ragged_trees()}) {
      if (h.query == 1 && tree.front().rows == 3) continue;  // too few rows
      auto const p = bf16_problem(tree, h);
      check_rounded(device, p, unedited{}, unedited{});
      check_rounded<bf16>(device, p, unedited{}, unedited{});
    }
  }
  for (index_t group = 1; group <= 16; ++group) {
    CAPTURE(group);
    check_rounded(device, bf16_problem({{-1, 3, 21, 0}, {0, 2, 10, 1}}, {2 * group, 2, 16}), unedited{}, unedited{});
  }
}

TEST_CASE("cuda bf16 attention: the output is written as products take it, rounded, beside itself and alone") {
  cuda_backend device;
  for (auto const& tree : {several_tiles(), decoding(300, 20)})
    for (index_t const dim : {16, 64}) {
      CAPTURE(dim);
      auto const p = bf16_problem(tree, {3, 1, dim});
      check_factors(device, p, unedited{});
      check_factors<bf16>(device, p, unedited{});
    }
}

TEST_CASE("cuda bf16 attention: every length from 9 to 140") {
  cuda_backend device;
  std::vector<node> tree;
  for (int length = 9; length <= 140; ++length) tree.push_back({-1, 0, length, length});
  check_rounded(device, bf16_problem(tree, {1, 1, 16}), unedited{}, unedited{});
}

TEST_CASE("cuda bf16 attention: keys of a prompt that many rollouts see are shared out to several blocks") {
  cuda_backend device;
  std::vector<node> tree{{-1, 0, 70, 0}, {0, 0, 5, 1}, {-1, 3, 2, 2}, {-1, 4, 67, 3}};
  for (int i = 0; i < 20; ++i) tree.push_back({3, 0, 1 + i % 7, 4 + i});
  tree.push_back({4, 1, 2, 99});  // sees the prompt through a rollout
  auto const p = bf16_problem(tree, {4, 2, 16});
  check_rounded(device, p, unedited{}, unedited{});
  check_rounded<bf16>(device, p, unedited{}, unedited{});
  auto const shared = on_device<float>(device, p, p.qkv, unedited{}),
             alone = on_device<float>(device, p, p.qkv, unedited{}, {}, {.shares_out = false});
  CHECK(relative_difference(shared.dqkv, alone.dqkv) < 1e-6);
  CHECK(same_in_every_thread_order([&] { return on_device<float, bf16>(device, p, p.qkv, unedited{}).all(); }));
}

TEST_CASE(
    "cuda bf16 attention: keys that lie one by one in the cache, so that a viewer sees parts of a tile at a time") {
  cuda_backend device;
  auto p = bf16_problem({{-1, 40, 37, 0}}, {3, 1, 16});
  p.segments.clear();
  for (int i = 0; i < 77; ++i) p.segments.push_back({i < 40 ? i : 40 + 76 - i, i, 1, i < 40 ? -1 : i - 40});
  p.sequences[0].segments = 77;
  for (int i = 0; i < 37; ++i) p.cache_rows[std::size_t(i)] = 76 - i;
  check_rounded(device, p, unedited{}, unedited{});
  check_rounded<bf16>(device, p, unedited{}, unedited{});
}

TEST_CASE("cuda bf16 attention: factors alone are rounded, and where rows are few or a group is large none are") {
  cuda_backend device;
  for (index_t const dim : {16, 64, 128}) {
    auto const p = bf16_problem(several_tiles(), {2, 1, dim});
    auto const rounded = on_device<float>(device, p, p.qkv, unedited{}), whole = with_float_weights(device, p);
    CHECK(relative_difference(rounded.out, whole.out) > 3e-4);
    CHECK(relative_difference(rounded.dqkv, whole.dqkv) > 3e-4);
    CHECK(relative_difference(rounded.out, whole.out) < 2e-2);
    CHECK(relative_difference(rounded.dqkv, whole.dqkv) < 2e-2);
    CHECK(same_in_every_thread_order([&] { return on_device<float>(device, p, p.qkv, unedited{}).all(); }));
  }
  for (auto const& p : {bf16_problem(decoding(300, 2), {4, 1, 64}), bf16_problem(several_tiles(), {17, 1, 16}),
                        bf16_problem(several_tiles(), {2, 1, 8})})
    CHECK(on_device<float>(device, p, p.qkv, unedited{}).all() == with_float_weights(device, p).all());
}

TEST_CASE("cuda bf16 attention: learned masks with a value for each pair, of large heads") {
  cuda_backend device;
  reference_backend host;
  for (heads const h : {heads{4, 1, 64}, heads{3, 1, 128}}) {
    CAPTURE(h.dim);
    mask_extent const first = make_mask_extent(mask_shape::pair, mask_rows::all_later, 37, 80, 97, 0);
    std::vector<mask_extent> const extents{
        first, make_mask_extent(mask_shape::pair, mask_rows::answer_rows, 41, 73, 84, first.count)};
    attention::learned_mask<cuda_backend> const on(device, mask_shape::pair, extents, 2.0f);
    attention::learned_mask<reference_backend> const oracle(host, mask_shape::pair, extents, 2.0f);
    auto values = random_values(on.parameter_count(), 21, 0.5);
    for (double& v : values) v = double(float(v - 0.5));
    auto const p = bf16_problem(two_rollouts(), h);
    check_rounded(device, p, on.params(), oracle.params(), values);
    CHECK(same_in_every_thread_order([&] { return on_device<float>(device, p, p.qkv, on.params(), values).all(); }));
  }
}

TEST_CASE("cuda bf16 attention: a pass takes as much scratch as it says") {
  for (auto const& tree : {several_tiles(), decoding(300, 20), std::vector<node>{{-1, 200, 9, 0}}})
    for (heads const h : {heads{3, 1, 64}, heads{4, 2, 16}}) {
      cuda_backend device;
      auto const p = bf16_problem(tree, h);
      CAPTURE(p.rows, h.dim);
      attention_pass_size size{.rows = p.rows,
                               .sequences = index_t(p.sequences.size()),
                               .longest = p.longest,
                               .trees = index_t(p.trees.size()) - 1,
                               .longest_root = p.longest_root(),
                               .root_viewers = p.root_viewers()};
      for (auto const& s : p.sequences) size.most_rows = std::max<index_t>(size.most_rows, s.rows);
      std::size_t const before = device.allocated_bytes();
      (void)on_device<float>(device, p, p.qkv, unedited{}, {}, {.backward = false});
      std::size_t const forward = device.allocated_bytes() - before;
      (void)on_device<float>(device, p, p.qkv, unedited{});
      using kernels_of = kernels::attention<cuda_backend>;
      CHECK(forward == kernels_of::scratch_bytes(p.extents, size, false));
      CHECK(device.allocated_bytes() - before == std::max(forward, kernels_of::scratch_bytes(p.extents, size, true)));
    }
}

#if defined(ATMANRL_CUDA_EMULATION)
TEST_CASE(
    "cuda bf16 attention: a block takes no more shared memory than every device gives, and the bits are the same") {
  device_like const smaller(8, 9);
  cuda_backend large, small({.device = smaller.ordinal});
  for (index_t const dim : {64, 128}) {
    auto const p = bf16_problem(several_tiles(), {4, 1, dim});
    CHECK(on_device<float, bf16>(small, p, p.qkv, unedited{}).all() ==
          on_device<float, bf16>(large, p, p.qkv, unedited{}).all());
  }
}
#endif
