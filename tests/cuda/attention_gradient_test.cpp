#include "cuda/attention_on_device.hpp"
#include "cuda/attention_policies.hpp"
#include "cuda/thread_orders.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

// The chain of thought is in the cache; only delimiter and answer rows are new.
std::vector<node> answers_only() { return {{-1, 37, 0, 7}, {0, 43, 17, 0}, {0, 36, 11, 1}}; }

// Masks of the sequences with the tags 0 and 1 of either tree.
std::vector<mask_extent> masks(mask_shape s, mask_rows rows, int copies) {
  mask_extent const first = make_mask_extent(s, rows, 37, 80, 97, 0, copies);
  return {first, make_mask_extent(s, rows, 41, 73, 84, first.count, copies)};
}

// Values on both sides of the clamp and at it.
std::vector<double> mask_values(index_t count) {
  auto values = random_values(count, 21, 0.5);
  for (double& x : values) x = double(float(x - 0.5));
  values[0] = -0.25;  // not clamped, so that the first parameter has a gradient
  values[1] = 0;
  return values;
}

// Derivatives of the sum of dout o out along random directions, by central differences of the forward pass on the
// device.
template <class Params>
void check_finite_differences(cuda_backend& device, tree_problem const& p, Params params,
                              std::vector<double> const& parameters) {
  constexpr double h = 1e-5;
  attention_results const got = on_device<double>(device, p, p.qkv, params, parameters);
  std::vector<double> dparameters(parameters.size());  // of all key-value heads
  for (std::size_t i = 0; i < got.dparameters.size(); ++i) dparameters[i % dparameters.size()] += got.dparameters[i];
  auto const loss = [&](std::vector<double> const& x, std::vector<double> const& values) {
    return weighted_sum(on_device<double>(device, p, x, params, values, {.backward = false}).out, p.dout);
  };
  auto const check = [&](std::vector<double> const& at, std::vector<double> const& gradient, unsigned seed,
                         auto const& f) {
    if (at.empty()) return;
    std::vector<double> const direction = random_values(index_t(at.size()), seed);
    std::vector<double> above = at, below = at;
    for (std::size_t i = 0; i < at.size(); ++i) above[i] += h * direction[i], below[i] -= h * direction[i];
    CHECK((f(above) - f(below)) / (2 * h) == Approx(weighted_sum(gradient, direction)).epsilon(1e-7).margin(1e-8));
  };
  for (unsigned const seed : {31u, 32u, 33u, 34u}) {
    check(p.qkv, got.dqkv, seed, [&](auto const& x) { return loss(x, parameters); });
    check(parameters, dparameters, seed, [&](auto const& values) { return loss(p.qkv, values); });
  }
}

}  // namespace

TEST_CASE("cuda attention: gradients in double agree with finite differences of the forward pass") {
  cuda_backend device;
  tree_problem const p({{-1, 2, 3, 0}, {0, 0, 2, 1}, {0, 1, 2, 2}, {2, 0, 1, 3}}, 4, 2, 8);
  check_finite_differences(device, p, unedited{}, {});
  check_finite_differences(device, p, wavy{}, {});
  check_finite_differences(device, p, shared_factor{}, random_values(5, 23, 0.5));
  check_finite_differences(device, p, factor_of_sequence{}, random_values(20, 24, 0.5));
  mask_extent const mask = make_mask_extent(mask_shape::pair, mask_rows::all_later, 1, 5, 7, 0);
  attention::learned_mask<cuda_backend> const policy(device, mask_shape::pair, std::span(&mask, 1), 2.0f);
  // Tag 0 belongs to the root, whose children do not see its mask.
  tree_problem const one({{-1, 2, 5, 0}}, 4, 2, 8);
  auto values = mask_values(policy.parameter_count());
  for (double& v : values) v = std::abs(v) < 1e-3 ? -0.2 : v;  // a difference quotient sees both sides of the clamp
  check_finite_differences(device, one, policy.params(), values);
}

TEST_CASE("cuda attention: learned masks of both shapes, rows and every sharing, forward and backward") {
  cuda_backend device, tf32({.tf32 = true});
  reference_backend host;
  for (mask_shape const s : {mask_shape::pair, mask_shape::column})
    for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows})
      for (mask_sharing const sharing : {mask_sharing::all, mask_sharing::per_layer, mask_sharing::per_head}) {
        CAPTURE(int(s), int(rows), int(sharing));
        mask_edit const edit{.scale = 2,
                             .sites = {.sharing = sharing, .layers = {0, 1}, .model_layers = 3, .heads = 6}};
        auto const extents = masks(s, rows, edit.sites.copies());
        attention::learned_mask<cuda_backend> const on(device, s, extents, edit);
        attention::learned_mask<reference_backend> const oracle(host, s, extents, edit);
        auto const values = mask_values(on.parameter_count());
        tree_problem const p(two_rollouts(), 6, 2, 16, 1);
        check_on_device<float>(device, p, on.params(), oracle.params(), values);
        attention::learned_mask<cuda_backend> const on_tf32(tf32, s, extents, edit);
        check_on_device<float>(tf32, p, on_tf32.params(), oracle.params(), values);
      }
}

TEST_CASE("cuda attention: a column of each head collects from all queries, over several tiles of keys") {
  cuda_backend device;
  reference_backend host;
  mask_edit const edit{.scale = 2, .sites = {.sharing = mask_sharing::per_head, .model_layers = 1, .heads = 3}};
  mask_extent const extent =
      make_mask_extent(mask_shape::column, mask_rows::all_later, 5, 125, 131, 0, edit.sites.copies());
  attention::learned_mask<cuda_backend> const on(device, mask_shape::column, std::span(&extent, 1), edit);
  attention::learned_mask<reference_backend> const oracle(host, mask_shape::column, std::span(&extent, 1), edit);
  check_on_device<float>(device, tree_problem({{-1, 0, 131, 0}}, 3, 1, 8), on.params(), oracle.params(),
                         mask_values(on.parameter_count()));
}

TEST_CASE("cuda attention: a mask over keys that an earlier call left in the cache") {
  cuda_backend device;
  reference_backend host;
  for (mask_shape const s : {mask_shape::pair, mask_shape::column}) {
    CAPTURE(int(s));
    auto const extents = masks(s, mask_rows::answer_rows, 1);
    attention::learned_mask<cuda_backend> const on(device, s, extents, 2.0f);
    attention::learned_mask<reference_backend> const oracle(host, s, extents, 2.0f);
    auto const values = mask_values(on.parameter_count());
    tree_problem const p(answers_only(), 6, 2, 16);
    check_on_device<float>(device, p, on.params(), oracle.params(), values, {.mean = true});
    check_on_device<float, bf16>(device, p, on.params(), oracle.params(), values);
    check_on_device<double>(device, p, on.params(), oracle.params(), values);
    cuda_backend tf32({.tf32 = true});
    attention::learned_mask<cuda_backend> const on_tf32(tf32, s, extents, 2.0f);
    check_on_device<float>(tf32, p, on_tf32.params(), oracle.params(), values);
  }
}

TEST_CASE("cuda attention: cached keys that one query alone edits, the first of the call or the last") {
  cuda_backend device;
  reference_backend host;
  mask_extent const extent = make_mask_extent(mask_shape::pair, mask_rows::answer_rows, 5, 50, 52, 0);  // row 50
  attention::learned_mask<cuda_backend> const on(device, mask_shape::pair, std::span(&extent, 1), 2.0f);
  attention::learned_mask<reference_backend> const oracle(host, mask_shape::pair, std::span(&extent, 1), 2.0f);
  for (node const n : {node{-1, 50, 3, 0}, node{-1, 45, 6, 0}})
    check_on_device<float>(device, tree_problem({n}, 1, 1, 8), on.params(), oracle.params(),
                           mask_values(on.parameter_count()));
}

TEST_CASE("cuda attention: the gradient of masks has the same bits in every order of threads") {
  cuda_backend device;
  for (mask_shape const s : {mask_shape::pair, mask_shape::column}) {
    for (auto const& tree : {two_rollouts(), answers_only()}) {
      CAPTURE(int(s), tree.size());
      auto const extents = masks(s, mask_rows::answer_rows, 1);
      attention::learned_mask<cuda_backend> const policy(device, s, extents, 2.0f);
      auto const values = mask_values(policy.parameter_count());
      tree_problem const p(tree, 3, 1, 16);
      CHECK(same_in_every_thread_order(
          [&] { return on_device<float>(device, p, p.qkv, policy.params(), values).all(); }));
    }
  }
}

TEST_CASE("cuda attention: a policy is asked about queries and keys that are there, and its range is cut to them") {
  cuda_backend device, tf32({.tf32 = true});
  std::vector<node> const tree{{-1, 2, 35, 0}, {0, 3, 20, 1}, {0, 0, 1, 2}, {-1, 0, 41, 3}};
  auto const values = random_values(4 * last_four::per_sequence, 27, 0.5);
  for (cuda_backend* b : {&device, &tf32}) {
    check_on_device<float>(*b, tree_problem(tree, 3, 1, 16), last_four{}, last_four{}, values);
    check_on_device<float>(*b, tree_problem({{-1, 30, 6, 0}}, 1, 1, 16), last_four{}, last_four{}, values);
  }
}

TEST_CASE("cuda attention: in TF32, too, parameters may be shared, rows few, and the smallest score looked at") {
  cuda_backend tf32({.tf32 = true});
  for (auto const& tree : {two_rollouts(), answers_only(), decoding(40, 2)}) {
    tree_problem const p(tree, 4, 2, 16);
    check_on_device<float>(tf32, p, shared_factor{}, shared_factor{}, random_values(5, 25, 0.5));
    check_on_device<float>(tf32, p, factor_of_sequence{}, factor_of_sequence{}, random_values(40, 26, 0.5));
    check_on_device<float>(tf32, p, shifted{}, shifted{});
  }
}

TEST_CASE(
    "cuda attention: parameters that keys or sequences share collect from all of them, the same bits in every order") {
  cuda_backend device;
  auto const few = random_values(5, 23, 0.5), many = random_values(40, 24, 0.5);
  for (auto const& tree : {ragged_trees(), std::vector<node>{{-1, 0, 70, 0}, {0, 30, 40, 1}}}) {
    tree_problem const p(tree, 6, 2, 8);
    check_on_device<float>(device, p, shared_factor{}, shared_factor{}, few);
    check_on_device<float, bf16>(device, p, factor_of_sequence{}, factor_of_sequence{}, many);
    CHECK(same_in_every_thread_order([&] { return on_device<float>(device, p, p.qkv, shared_factor{}, few).all(); }));
    CHECK(same_in_every_thread_order(
        [&] { return on_device<float>(device, p, p.qkv, factor_of_sequence{}, many).all(); }));
  }
  // One query and one key more than tiles hold, and three parameters that the same thread owns and meets in turn.
  tree_problem const p({{-1, 0, 65, 0}}, 1, 1, 8);
  check_on_device<float>(device, p, shared_factor{}, shared_factor{}, few);
  check_on_device<float>(device, p, every_third{}, every_third{}, random_values(257, 25, 0.5));
}

TEST_CASE("cuda attention: the gradient of parameters is added to what is there, and left out where it is not wanted") {
  cuda_backend device;
  tree_problem const p(two_rollouts(), 2, 2, 8);
  auto const check = [&](auto params, std::vector<double> const& values) {
    auto const once = on_device<double>(device, p, p.qkv, params, values);
    auto const added = on_device<double>(device, p, p.qkv, params, values, {.dparameters_before = 3});
    std::vector<double> expected;
    for (double const d : once.dparameters) expected.push_back(d + 3);
    CHECK(relative_difference(added.dparameters, expected) < 1e-14);
    auto const without = on_device<double>(device, p, p.qkv, params, values, {.wants_dparameters = false});
    CHECK(without.dparameters.empty());
    CHECK(without.dqkv == once.dqkv);
  };
  auto const extents = masks(mask_shape::column, mask_rows::all_later, 1);
  attention::learned_mask<cuda_backend> const policy(device, mask_shape::column, extents, 2.0f);
  check(policy.params(), mask_values(policy.parameter_count()));
  check(shared_factor{}, random_values(5, 23, 0.5));
}
