#include <atmanrl/attention/knockout.hpp>
#include <atmanrl/attention/suppress.hpp>

#include "cuda/attention_on_device.hpp"
#include "cuda/attention_policies.hpp"
#include "cuda/thread_orders.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

struct heads {
  index_t query, kv, dim;
};

using unedited = attention::none::params_type;

std::vector<node> three_levels() { return {{-1, 0, 37, 0}, {0, 0, 70, 1}, {0, 0, 33, 2}, {1, 0, 9, 3}, {1, 5, 20, 4}}; }

// A prompt in the cache, and rollouts that each add a few rows.
std::vector<node> decoding(int prompt, int most) {
  return {{-1, prompt, 0, 0}, {0, 3, 1, 1}, {0, 0, most, 2}, {0, 33, 1, 3}, {0, 7, 0, 4}, {0, 1, 1, 5}};
}

std::vector<node> two_rollouts() { return {{-1, 20, 17, 7}, {0, 0, 60, 0}, {0, 2, 45, 1}, {-1, 0, 9, 2}}; }

// The same keys and rows for both backends' policies.
template <class B, class F>
auto with_selections(B& backend, F const& make) {
  std::vector<key_selection> selections(3);
  selections[0] = select_keys(3, 30, 25, 60);
  selections[1] = select_keys(0, 50, 50);
  for (std::size_t i = 0; i < selections[1].chosen.size(); i += 3) selections[1].chosen[i] = 0;
  selections[2] = select_keys(0, 8, 8);  // the last row of its sequence keeps one key
  return make(backend, selections);
}

void check_policy(cuda_backend& device, tree_problem const& p, auto const& make) {
  reference_backend host;
  auto const on = with_selections(device, make);
  auto const oracle = with_selections(host, make);
  check_on_device<float>(device, p, on.params(), oracle.params());
  CHECK(same_in_every_thread_order([&] { return on_device<float>(device, p, p.qkv, on.params()).all(); }));
}

}  // namespace

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
  for (auto const& tree : {three_levels(), std::vector<node>{{-1, 100, 1, 0}, {-1, 31, 40, 1}, {1, 70, 3, 2}}}) {
    check_on_device<float>(device, tree_problem(tree, 3, 1, 32), unedited{}, unedited{});
    check_on_device<float, bf16>(device, tree_problem(tree, 4, 2, 16), wavy{}, wavy{});
  }
}

TEST_CASE(
    "cuda attention: a prefix shared by children in the batch collects their gradients, the same bits in any order") {
  cuda_backend device;
  tree_problem const p(three_levels(), 6, 2, 16, 3);
  check_on_device<float>(device, p, wavy{}, wavy{});
  CHECK(same_in_every_thread_order([&] { return on_device<float>(device, p, p.qkv, wavy{}).all(); }));
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

TEST_CASE("cuda attention: a split row whose first part is knocked out altogether") {
  cuda_backend device;
  reference_backend host;
  std::vector<key_selection> const selections{select_keys(0, 0), select_keys(0, 300, 300), select_keys(260, 513, 300),
                                              select_keys(0, 0)};
  tree_problem const p(decoding(520, 2), 2, 1, 8);
  check_on_device<float>(device, p, attention::knockout(device, selections).params(),
                         attention::knockout(host, selections).params());
}

TEST_CASE("cuda attention: a split row whose last key outweighs all others by more than a float can hold") {
  cuda_backend device;
  index_t const width = 4 * 8;
  tree_problem p(decoding(300, 1), 2, 1, 8);
  for (std::size_t i = 0; i < p.qkv.size(); ++i)
    if (index_t(i) % width < 24) p.qkv[i] = 10;  // queries and keys: a row's score of itself is 283
  check_on_device<float>(device, p, unedited{}, unedited{});
}

TEST_CASE("cuda attention: the row's smallest score may be positive, and that of the last key") {
  cuda_backend device;
  tree_problem p({{-1, 0, 70, 0}, {-1, 0, 33, 1}}, 2, 1, 8);
  for (double& x : p.qkv) x = std::abs(x);
  // The last key of the second sequence is alone in its tile, and its score is 0.
  for (std::size_t c = 16; c < 24; ++c) p.qkv[102 * 32 + c] = 0;
  check_on_device<float>(device, p, shifted{}, shifted{});
}

TEST_CASE("cuda attention: an edit of every score, and one that looks at the row's smallest score") {
  cuda_backend device;
  for (auto const& tree : {ragged_trees(), decoding(300, 2), std::vector<node>{{-1, 0, 70, 0}}})
    for (heads const h : {heads{4, 2, 16}, heads{6, 2, 8}}) {
      tree_problem const p(tree, h.query, h.kv, h.dim, 3);
      check_on_device<float>(device, p, wavy{}, wavy{});
      check_on_device<float>(device, p, shifted{}, shifted{});
      check_on_device<float, bf16>(device, p, shifted{}, shifted{});
    }
}

TEST_CASE("cuda attention: knockout and both forms of suppression, with rows that keep one key") {
  cuda_backend device;
  tree_problem const p(two_rollouts(), 6, 2, 16);
  check_policy(device, p,
               [](auto& backend, auto const& selections) { return attention::knockout(backend, selections); });
  check_policy(device, p,
               [](auto& backend, auto const& selections) { return attention::suppress(backend, selections, 0.3f); });
  check_policy(device, p, [](auto& backend, auto const& selections) {
    return attention::suppress_log(backend, selections, 0.3f);
  });
}

TEST_CASE("cuda mean attention: the rebuilt probabilities are those of the plain loops, the same bits in any order") {
  cuda_backend device;
  for (heads const h : {heads{1, 1, 16}, heads{6, 2, 8}, heads{4, 2, 64}}) {
    tree_problem const p(ragged_trees(), h.query, h.kv, h.dim, 3);
    check_on_device<float>(device, p, unedited{}, unedited{}, {}, {.mean = true});
    check_on_device<float, bf16>(device, p, wavy{}, wavy{}, {}, {.mean = true});
    check_on_device<double>(device, p, wavy{}, wavy{}, {}, {.mean = true});
    CHECK(same_in_every_thread_order(
        [&] { return on_device<float>(device, p, p.qkv, wavy{}, {}, {.backward = false, .mean = true}).mean; }));
  }
  tree_problem const cached(decoding(40, 2), 2, 1, 8);
  check_on_device<float>(device, cached, unedited{}, unedited{}, {}, {.mean = true});
}

TEST_CASE("cuda attention: keys that lie one by one in the cache give the bits of keys in one run") {
  cuda_backend device;
  tree_problem whole({{-1, 40, 37, 0}}, 3, 1, 16);
  auto const expected = on_device<float>(device, whole, whole.qkv, wavy{});
  tree_problem scattered = whole;
  scattered.segments.clear();
  for (int i = 0; i < 77; ++i) scattered.segments.push_back({i < 40 ? i : 40 + 76 - i, i, 1, i < 40 ? -1 : i - 40});
  scattered.sequences[0].segments = 77;
  for (int i = 0; i < 37; ++i) scattered.cache_rows[std::size_t(i)] = 76 - i;
  auto const got = on_device<float>(device, scattered, whole.qkv, wavy{});
  CHECK(got.out == expected.out);
  CHECK(got.lse == expected.lse);
  CHECK(got.dqkv == expected.dqkv);
}

TEST_CASE("cuda attention: a decoded row has the same bits alone and beside its siblings") {
  cuda_backend device;
  index_t const heads = 4, kv = 2, dim = 8, width = (heads + 2 * kv) * dim;
  std::vector<node> tree{{-1, 300, 0, 0}};
  for (int i = 1; i <= 4; ++i) tree.push_back({0, 0, 1, i});
  tree_problem const together(tree, heads, kv, dim);
  auto const expected = on_device<float>(device, together, together.qkv, wavy{}, {}, {.backward = false});
  for (int i = 1; i <= 4; ++i) {
    tree_problem alone({{-1, 300, 0, 0}, {0, 0, 1, i}}, heads, kv, dim);
    auto const own = together.qkv.begin() + (i - 1) * width;
    auto const got = on_device<float>(device, alone, {own, own + width}, wavy{}, {}, {.backward = false});
    auto const rows = expected.out.begin() + (i - 1) * heads * dim;
    CHECK(got.out == std::vector<double>(rows, rows + heads * dim));
  }
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
                    Catch::Contains("head dimensions 8, 16, 32, 64 and 128, not 12"));

  tensor<cuda_backend, float, 1> memory(device, {64});
  tensor<cuda_backend, int, 1> row(device, {1});
  view<float, 3, device_space> const whole(memory.data(), {1, 1, 8}), shifted_view(memory.data() + 1, {1, 1, 8});
  view<float const, 3, device_space> const qkv(memory.data() + 16, {1, 3, 8});
  attention_extents const e{0, 1, 1, 8};
  CHECK_THROWS_WITH(append_keys_and_values(device, e, qkv, row.cview(), whole, shifted_view),
                    Catch::Contains("16 bytes at a time"));
}
