// Edited scores in attention of models with bf16 weights, and the gradient of what edits them.
#include <atmanrl/attention/knockout.hpp>

#include "cuda/attention_policies.hpp"
#include "cuda/attention_rounded.hpp"
#include "cuda/thread_orders.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

std::vector<node> answers_only() { return {{-1, 37, 0, 7}, {0, 43, 17, 0}, {0, 36, 11, 1}}; }

// Masks of the sequences with the tags 0 and 1 of either tree.
std::vector<mask_extent> masks(mask_shape s, mask_rows rows, int copies) {
  mask_extent const first = make_mask_extent(s, rows, 37, 80, 97, 0, copies);
  return {first, make_mask_extent(s, rows, 41, 73, 84, first.count, copies)};
}
std::vector<double> mask_values(index_t count) {
  auto values = random_values(count, 21, 0.5);
  for (double& x : values) x = double(float(x - 0.5));
  values[0] = -0.25;  // not clamped, so that the first parameter has a gradient
  values[1] = 0;
  return values;
}

/// The last four keys of each query, a parameter for every second head.
struct last_four_of_heads : last_four {
  static constexpr index_t per_sequence = 1600;
  bool separate_queries() const { return true; }
  ATMANRL_HOST_DEVICE index_t parameter(score_site at) const {
    index_t const own = last_four::parameter({at.layer, at.head, 0, at.query, at.key});
    return own < 0 || own >= 400 ? own : at.sequence * per_sequence + at.head / 2 % 4 * 400 + own;
  }
};
/// The same parameter for all heads, but each head has keys of its own.
struct ranges_of_heads : last_four {
  bool separate_queries() const { return true; }
  ATMANRL_HOST_DEVICE key_range keys(score_site at) const { return {at.query - 3 + at.head % 3, at.query + 1}; }
  ATMANRL_HOST_DEVICE index_t parameter(score_site at) const {
    return at.key < at.query - 3 + at.head % 3 ? -1 : last_four::parameter(at);
  }
};

}  // namespace

TEST_CASE("cuda bf16 attention: edits of all scores, and rows that keep one key") {
  cuda_backend device;
  reference_backend host;
  for (auto const& tree : {three_levels(), two_rollouts()})
    for (heads const h : {heads{4, 2, 16}, heads{3, 1, 16}}) {
      auto const p = bf16_problem(tree, h, 3);
      check_rounded(device, p, wavy{}, wavy{});
      check_rounded<bf16>(device, p, wavy{}, wavy{});
      CHECK(same_in_every_thread_order([&] { return on_device<float, bf16>(device, p, p.qkv, wavy{}).all(); }));
    }
  std::vector<key_selection> selections(3);
  selections[0] = select_keys(3, 30, 25, 60);
  selections[1] = select_keys(0, 50, 50);
  selections[2] = select_keys(0, 8, 8);  // the last row of its sequence keeps one key
  check_rounded(device, bf16_problem(two_rollouts(), {6, 2, 16}), attention::knockout(device, selections).params(),
                attention::knockout(host, selections).params());
  // A split row whose first parts are knocked out altogether.
  std::vector<key_selection> const parts{select_keys(0, 0), select_keys(0, 300, 300), select_keys(260, 513, 300),
                                         select_keys(0, 0)};
  check_rounded(device, bf16_problem(decoding(520, 20), {2, 1, 16}), attention::knockout(device, parts).params(),
                attention::knockout(host, parts).params());
}

TEST_CASE("cuda bf16 attention: learned masks of all rows and every sharing, forward and backward") {
  cuda_backend device;
  reference_backend host;
  for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows})
    for (mask_sharing const sharing : {mask_sharing::all, mask_sharing::per_layer, mask_sharing::per_head})
      for (index_t const group : {1, 2, 3, 4, 8}) {
        if (rows == mask_rows::answer_rows && group != 3) continue;  // the same code, on fewer tiles
        CAPTURE(int(rows), int(sharing), group);
        mask_edit const edit{.scale = 2,
                             .sites = {.sharing = sharing, .layers = {0, 1}, .model_layers = 3, .heads = 2 * group}};
        auto const extents = masks(mask_shape::pair, rows, edit.sites.copies());
        attention::learned_mask<cuda_backend> const on(device, mask_shape::pair, extents, edit);
        attention::learned_mask<reference_backend> const oracle(host, mask_shape::pair, extents, edit);
        check_rounded(device, bf16_problem(two_rollouts(), {2 * group, 2, 16}, 1), on.params(), oracle.params(),
                      mask_values(on.parameter_count()));
      }
}

TEST_CASE("cuda bf16 attention: a mask over keys that an earlier call left in the cache, of rows that are split") {
  cuda_backend device;
  reference_backend host;
  auto const extents = masks(mask_shape::pair, mask_rows::answer_rows, 1);
  attention::learned_mask<cuda_backend> const on(device, mask_shape::pair, extents, 2.0f);
  attention::learned_mask<reference_backend> const oracle(host, mask_shape::pair, extents, 2.0f);
  auto const values = mask_values(on.parameter_count());
  for (heads const h : {heads{4, 2, 16}, heads{3, 1, 16}}) {
    auto const p = bf16_problem(answers_only(), h);
    check_rounded(device, p, on.params(), oracle.params(), values);
    check_rounded<bf16>(device, p, on.params(), oracle.params(), values);
    CHECK(same_in_every_thread_order([&] { return on_device<float>(device, p, p.qkv, on.params(), values).all(); }));
    auto const once = on_device<float>(device, p, p.qkv, on.params(), values),
               added = on_device<float>(device, p, p.qkv, on.params(), values, {.dparameters_before = 3}),
               without = on_device<float>(device, p, p.qkv, on.params(), values, {.wants_dparameters = false});
    std::vector<double> expected;
    for (double const d : once.dparameters) expected.push_back(d + 3);
    CHECK(relative_difference(added.dparameters, expected) < 1e-6);
    CHECK(without.dparameters.empty());
    CHECK(without.dqkv == once.dqkv);
  }
}

TEST_CASE("cuda bf16 attention: heads share parameters in whatever way, and name keys of their own") {
  cuda_backend device;
  std::vector<node> const tree{{-1, 2, 35, 0}, {0, 3, 20, 1}, {0, 0, 1, 2}, {-1, 0, 41, 3}};
  auto const values = random_values(4 * last_four_of_heads::per_sequence, 27, 0.5);
  for (index_t const group : {1, 3, 4, 8}) {
    CAPTURE(group);
    auto const p = bf16_problem(tree, {group, 1, 16});
    check_rounded(device, p, last_four_of_heads{}, last_four_of_heads{}, values);
    check_rounded(device, p, ranges_of_heads{}, ranges_of_heads{}, values);
    CHECK(same_in_every_thread_order(
        [&] { return on_device<float>(device, p, p.qkv, last_four_of_heads{}, values).all(); }));
  }
}

TEST_CASE("cuda bf16 attention: where queries share parameters, everything is as with float weights") {
  cuda_backend device;
  auto const extents = masks(mask_shape::column, mask_rows::all_later, 1);
  attention::learned_mask<cuda_backend> const column(device, mask_shape::column, extents, 2.0f);
  auto const check = [&](std::vector<node> const& tree, auto params, std::vector<double> const& values) {
    auto p = bf16_problem(tree, {4, 2, 16});
    auto const got = on_device<float>(device, p, p.qkv, params, values).all();
    p.extents.bf16_weights = false;
    CHECK(got == on_device<float>(device, p, p.qkv, params, values).all());
  };
  check(two_rollouts(), column.params(), mask_values(column.parameter_count()));
  std::vector<node> const tree{{-1, 2, 35, 0}, {0, 3, 20, 1}, {-1, 0, 41, 2}};
  check(tree, shared_factor{}, random_values(5, 23, 0.5));
  check(tree, last_four{}, random_values(3 * last_four::per_sequence, 23, 0.5));  // it does not say that they do not
  check(tree, shifted{}, {});
}
