// Attention without an edit, for every head dimension and storage of keys and values.
#include "cuda/attention_on_device.hpp"
#include "cuda/attention_policies.hpp"
#include "cuda/device_like.hpp"
#include "cuda/thread_orders.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

TEST_CASE("cuda attention: forward and backward agree with plain loops for every head dimension and grouping") {
  cuda_backend device;
  for (heads const h :
       {heads{1, 1, 16}, heads{3, 1, 64}, heads{8, 1, 8}, heads{4, 2, 32}, heads{2, 2, 128}, heads{10, 2, 8}}) {
    CAPTURE(h.query, h.kv, h.dim);
    tree_problem const p(ragged_trees(), h.query, h.kv, h.dim);
    check_on_device<float>(device, p, unedited{}, unedited{});
    check_on_device<float, bf16>(device, p, unedited{}, unedited{});
    check_on_device<double>(device, p, unedited{}, unedited{});
  }
  for (index_t group = 1; group <= 9; ++group) {
    CAPTURE(group);
    check_on_device<float>(device, tree_problem(ragged_trees(), 2 * group, 2, 8), unedited{}, unedited{});
  }
}

TEST_CASE("cuda attention: every length from 1 to 129") {
  cuda_backend device;
  std::vector<node> tree;
  for (int length = 1; length <= 129; ++length) tree.push_back({-1, 0, length, length});
  check_on_device<float>(device, tree_problem(tree, 1, 1, 8), unedited{}, unedited{});
}

TEST_CASE("cuda attention: rows and keys over several tiles, segments of the cache and three levels of prefixes") {
  cuda_backend device;
  for (auto const& tree : {three_levels(), several_roots()}) {
    check_on_device<float>(device, tree_problem(tree, 3, 1, 32), unedited{}, unedited{});
    check_on_device<float, bf16>(device, tree_problem(tree, 4, 2, 16), unedited{}, unedited{});
  }
}

TEST_CASE("cuda attention: keys of a prompt that many rollouts see are shared out to several blocks") {
  cuda_backend device;
  for (int const rollouts : {1, 2, 15, 16, 40}) {
    CAPTURE(rollouts);
    std::vector<node> tree{{-1, 0, 70, 0}, {0, 0, 5, 1}, {-1, 3, 2, 2}};  // a smaller tree in front, and one alone
    int const prompt = int(tree.size());
    tree.push_back({-1, 4, 3, 3});
    for (int i = 0; i < rollouts; ++i) tree.push_back({prompt, 0, 1 + i % 7, 4 + i});
    tree.push_back({prompt + 1, 1, 2, 99});  // sees the prompt through a rollout
    tree_problem const p(tree, 4, 2, 8);
    check_on_device<float>(device, p, unedited{}, unedited{});
    check_on_device<float>(device, p, unedited{}, unedited{}, {}, {.shares_out = false});
    CHECK(same_in_every_thread_order([&] { return on_device<float>(device, p, p.qkv, unedited{}).dqkv; }));
  }
  tree_problem const wide(three_levels(), 2, 1, 128);
  check_on_device<float, bf16>(device, wide, unedited{}, unedited{});
}

TEST_CASE(
    "cuda attention: what a prompt's viewers sum takes memory for the prompt's rows, not for the longest rollout's") {
  cuda_backend device;
  std::vector<node> tree{{-1, 0, 6, 0}};
  for (int i = 0; i < 3; ++i) tree.push_back({0, 0, i == 1 ? 150 : 4, 1 + i});
  tree.push_back({-1, 0, 5, 4});  // of fewer rows, and nobody else sees them
  tree_problem const p(tree, 2, 1, 8);
  std::size_t const before = device.allocated_bytes();
  check_on_device<float>(device, p, unedited{}, unedited{});
  // Corrections of 169 rows and 2 heads, in fours; dK and dV of 4 - 1 parts, 2 trees, 6 rows.
  CHECK(device.allocated_bytes() - before == sizeof(float) * (340 + 3 * 2 * 6 * 2 * 8));
}

TEST_CASE("cuda attention: where TF32 is asked for, products of many rows are rounded to it and no more") {
  cuda_backend device({.tf32 = true}), exact;
  for (heads const h : {heads{3, 1, 16}, heads{4, 2, 32}, heads{2, 1, 64}, heads{2, 2, 128}, heads{1, 1, 8}}) {
    CAPTURE(h.query, h.kv, h.dim);
    for (auto const& tree : {ragged_trees(), three_levels(), decoding(130, 20)}) {
      tree_problem const p(tree, h.query, h.kv, h.dim);
      check_on_device<float>(device, p, unedited{}, unedited{});
      check_on_device<float, bf16>(device, p, unedited{}, unedited{});
    }
    tree_problem const p(three_levels(), h.query, h.kv, h.dim);
    auto const rounded = on_device<float>(device, p, p.qkv, unedited{}),
               whole = on_device<float>(exact, p, p.qkv, unedited{});
    double const least = h.dim == 8 ? -1 : 1e-5;  // smaller heads than the matrix units' edges stay as they are
    CHECK(relative_difference(rounded.out, whole.out) > least);
    CHECK(relative_difference(rounded.dqkv, whole.dqkv) > least);
    if (h.dim == 8) CHECK(rounded.all() == whole.all());
    CHECK(same_in_every_thread_order([&] { return on_device<float>(device, p, p.qkv, wavy{}).all(); }));
  }
  check_on_device<double>(device, tree_problem(ragged_trees(), 2, 1, 16), unedited{}, unedited{});
}

TEST_CASE("cuda attention: the output is written as products take it, rounded, beside itself and alone") {
  cuda_backend device, tf32({.tf32 = true});
  for (auto* const backend : {&device, &tf32})
    for (auto const& tree : {ragged_trees(), decoding(300, 1), three_levels()})
      for (heads const h : {heads{2, 1, 8}, heads{3, 1, 64}}) {
        CAPTURE(h.dim);
        tree_problem const p(tree, h.query, h.kv, h.dim);
        check_factors(*backend, p, unedited{});
        CHECK(same_in_every_thread_order([&] {
          return on_device<float>(*backend, p, p.qkv, unedited{}, {}, {.backward = false, .as_factor_alone = true})
              .factor;
        }));
      }
}

TEST_CASE("cuda attention: few rows over long keys are split over the keys and merged") {
  cuda_backend device;
  for (int const prompt : {200, 254, 255, 256, 300, 520})
    for (int const most : {1, 2, 40}) {
      for (heads const h : {heads{2, 1, 8}, heads{4, 1, 8}}) {
        CAPTURE(prompt, most, h.query);
        check_on_device<float>(device, tree_problem(decoding(prompt, most), h.query, h.kv, h.dim), unedited{},
                               unedited{});
      }
    }
  for (index_t const dim : {16, 128}) {
    tree_problem const p(decoding(300, 1), 3, 1, dim);
    check_on_device<float>(device, p, unedited{}, unedited{});
    check_on_device<float, bf16>(device, p, wavy{}, wavy{});
    CHECK(same_in_every_thread_order(
        [&] { return on_device<float, bf16>(device, p, p.qkv, wavy{}, {}, {.backward = false}).all(); }));
  }
}

TEST_CASE("cuda attention: rows are split in fewer parts, or none, where there are many sequences") {
  cuda_backend device;
  for (int const rollouts : {20, 70, 140}) {
    CAPTURE(rollouts);
    std::vector<node> tree{{-1, 300, 0, 0}};
    for (int i = 0; i < rollouts; ++i) tree.push_back({0, i % 3, 1, 1 + i});
    tree_problem const p(tree, 8, 8, 8);
    check_on_device<float>(device, p, unedited{}, unedited{});
  }
}

TEST_CASE("cuda attention: a split row whose last key outweighs all others by more than a float can hold") {
  cuda_backend device;
  index_t const width = 4 * 8;
  tree_problem p(decoding(300, 1), 2, 1, 8);
  for (std::size_t i = 0; i < p.qkv.size(); ++i)
    if (index_t(i) % width < 24) p.qkv[i] = 10;  // queries and keys: a row's score of itself is 283
  check_on_device<float>(device, p, unedited{}, unedited{});
}

TEST_CASE("cuda mean attention: the rebuilt probabilities are those of the plain loops, the same bits in any order") {
  cuda_backend device;
  for (heads const h : {heads{1, 1, 16}, heads{6, 2, 8}, heads{4, 2, 64}}) {
    tree_problem const p(ragged_trees(), h.query, h.kv, h.dim, 3);
    check_on_device<float>(device, p, unedited{}, unedited{}, {}, {.mean = true});
    check_on_device<float, bf16>(device, p, unedited{}, unedited{}, {}, {.mean = true});
    check_on_device<double>(device, p, unedited{}, unedited{}, {}, {.mean = true});
    CHECK(same_in_every_thread_order(
        [&] { return on_device<float>(device, p, p.qkv, unedited{}, {}, {.backward = false, .mean = true}).mean; }));
  }
  tree_problem const cached(decoding(40, 2), 2, 1, 8);
  check_on_device<float>(device, cached, unedited{}, unedited{}, {}, {.mean = true});
}

TEST_CASE("cuda attention: new keys and values go to their rows of the cache, rounded where it is bf16") {
  cuda_backend device;
  tree_problem const p(ragged_trees(), 4, 2, 16);
  auto const x = converted<float>(p.qkv);
  std::vector<double> const given(x.begin(), x.end());
  auto const expected = p.forward(given, unedited{});
  auto const plain = on_device<float>(device, p, p.qkv, unedited{}, {}, {.backward = false});
  CHECK(plain.keys == converted<double>(converted<float>(expected.keys)));
  CHECK(plain.values == converted<double>(converted<float>(expected.values)));
  auto const rounded = on_device<float, bf16>(device, p, p.qkv, unedited{}, {}, {.backward = false});
  std::vector<double> keys, values;
  for (double const k : expected.keys) keys.push_back(double(float(bf16(float(k)))));
  for (double const v : expected.values) values.push_back(double(float(bf16(float(v)))));
  CHECK(rounded.keys == keys);
  CHECK(rounded.values == values);
}

TEST_CASE("cuda attention: a plan that does not say how many rows a sequence has gives the same bits") {
  cuda_backend device;
  tree_problem const p(three_levels(), 4, 2, 8);
  auto const known = on_device<float>(device, p, p.qkv, unedited{}, {}, {.mean = true});
  CHECK(on_device<float>(device, p, p.qkv, unedited{}, {}, {.mean = true, .says_most_rows = false}).all() ==
        known.all());
}

TEST_CASE("cuda attention: head dimensions without a kernel, and memory that begins within 16 bytes, are sentences") {
  cuda_backend device;
  tree_problem const p({{-1, 0, 2, 0}}, 1, 1, 12);
  CHECK_THROWS_WITH(on_device<float>(device, p, p.qkv, unedited{}),
                    Catch::Contains("head dimensions 8, 16, 32, 64, 128, not 12"));

  tensor<cuda_backend, float, 1> memory(device, {64});
  tensor<cuda_backend, int, 1> row(device, {1});
  view<float, 3, device_space> const whole(memory.data(), {1, 1, 8}), shifted_view(memory.data() + 1, {1, 1, 8});
  view<float const, 3, device_space> const qkv(memory.data() + 16, {1, 3, 8});
  attention_extents const e{0, 1, 1, 8};
  CHECK_THROWS_WITH(append_keys_and_values(device, e, qkv, row.cview(), whole, shifted_view),
                    Catch::Contains("16 bytes at a time"));
}

#if defined(ATMANRL_CUDA_EMULATION)
TEST_CASE("cuda attention: where a block may have 99 KB of shared memory, large heads train, too") {
  device_like const smaller(8, 6);
  for (bool const tf32 : {false, true}) {
    cuda_backend large({.tf32 = tf32}), small({.device = smaller.ordinal, .tf32 = tf32});
    CHECK(large.shared_limit() == 227 << 10);
    CHECK(small.shared_limit() == 99 << 10);
    for (index_t const dim : {64, 128}) {
      CAPTURE(tf32, dim);
      for (auto const& tree : {ragged_trees(), three_levels(), decoding(70, 20)}) {
        tree_problem const p(tree, 2, 1, dim);
        check_on_device<float>(small, p, unedited{}, unedited{});
        check_on_device<float, bf16>(small, p, unedited{}, unedited{});
      }
      // What fits a block there is the same as elsewhere: all of the forward pass in float.
      tree_problem const p(three_levels(), 2, 1, dim);
      auto const got = on_device<float>(small, p, p.qkv, unedited{}),
                 elsewhere = on_device<float>(large, p, p.qkv, unedited{});
      CHECK(got.out == elsewhere.out);
      CHECK(got.lse == elsewhere.lse);
      if (dim == 64) CHECK(got.dqkv == elsewhere.dqkv);
      CHECK(same_in_every_thread_order([&] { return on_device<float>(small, p, p.qkv, unedited{}).dqkv; }));
    }
  }
  cuda_backend small({.device = smaller.ordinal});
  check_on_device<double>(small, tree_problem(ragged_trees(), 2, 2, 128), unedited{}, unedited{});
}
#endif
