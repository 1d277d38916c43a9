// Attention whose scores are edited.
#include <atmanrl/attention/knockout.hpp>
#include <atmanrl/attention/suppress.hpp>

#include "cuda/attention_on_device.hpp"
#include "cuda/attention_policies.hpp"
#include "cuda/thread_orders.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

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

TEST_CASE("cuda attention: an edit of every score, and one that looks at the row's smallest score") {
  cuda_backend device;
  for (auto const& tree : {ragged_trees(), decoding(300, 2), std::vector<node>{{-1, 0, 70, 0}}})
    for (heads const h : {heads{4, 2, 16}, heads{6, 2, 8}}) {
      tree_problem const p(tree, h.query, h.kv, h.dim, 3);
      check_on_device<float>(device, p, wavy{}, wavy{});
      check_on_device<float>(device, p, shifted{}, shifted{});
      check_on_device<float, bf16>(device, p, shifted{}, shifted{});
      check_on_device<float>(device, p, shifted_in_window{}, shifted_in_window{});
    }
}

TEST_CASE("cuda attention: an edit of every score over several tiles, segments of the cache and levels of prefixes") {
  cuda_backend device;
  for (auto const& tree : {three_levels(), several_roots()})
    check_on_device<float, bf16>(device, tree_problem(tree, 4, 2, 16), wavy{}, wavy{});
}

TEST_CASE(
    "cuda attention: a prefix shared by children in the batch collects their gradients, the same bits in any order") {
  cuda_backend device;
  tree_problem const p(three_levels(), 6, 2, 16, 3);
  check_on_device<float>(device, p, wavy{}, wavy{});
  CHECK(same_in_every_thread_order([&] { return on_device<float>(device, p, p.qkv, wavy{}).all(); }));
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

TEST_CASE("cuda attention: a split row whose first part is knocked out altogether") {
  cuda_backend device;
  reference_backend host;
  std::vector<key_selection> const selections{select_keys(0, 0), select_keys(0, 300, 300), select_keys(260, 513, 300),
                                              select_keys(0, 0)};
  tree_problem const p(decoding(520, 2), 2, 1, 8);
  check_on_device<float>(device, p, attention::knockout(device, selections).params(),
                         attention::knockout(host, selections).params());
}

TEST_CASE("cuda attention: the row's smallest score may be positive, and that of the last key") {
  cuda_backend device;
  tree_problem p({{-1, 0, 70, 0}, {-1, 0, 33, 1}}, 2, 1, 8);
  for (double& x : p.qkv) x = std::abs(x);
  // The last key of the second sequence is alone in its tile, and its score is 0.
  for (std::size_t c = 16; c < 24; ++c) p.qkv[102 * 32 + c] = 0;
  check_on_device<float>(device, p, shifted{}, shifted{});
}

TEST_CASE("cuda mean attention: an edit changes the rebuilt probabilities as it changes the scores") {
  cuda_backend device;
  for (heads const h : {heads{1, 1, 16}, heads{6, 2, 8}}) {
    tree_problem const p(ragged_trees(), h.query, h.kv, h.dim, 3);
    check_on_device<float>(device, p, wavy{}, wavy{}, {}, {.mean = true});
    check_on_device<float, bf16>(device, p, wavy{}, wavy{}, {}, {.mean = true});
    check_on_device<double>(device, p, wavy{}, wavy{}, {}, {.mean = true});
    CHECK(same_in_every_thread_order(
        [&] { return on_device<float>(device, p, p.qkv, wavy{}, {}, {.backward = false, .mean = true}).mean; }));
  }
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
