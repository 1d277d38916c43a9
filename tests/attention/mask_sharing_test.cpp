// Learned masks that act in some layers only, or with an H for each layer or head; and the lower clamp.
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "attention/problem.hpp"
#include "catch.hpp"

#include <map>
#include <set>

using namespace atmanrl;
using namespace atmanrl_test;

namespace mask_sharing_test {
namespace {

constexpr int model_layers = 5;

/// Two rollouts under one prompt of 3 tokens (4 + 2 + 2 and 3 + 1 + 3 tokens) and a sequence without a mask, in
/// `layer`.
struct shared_test {
  static std::vector<node> tree() { return {{-1, 0, 3, -1}, {0, 0, 8, 0}, {0, 0, 7, 1}, {-1, 0, 4, 2}}; }
  static std::vector<mask_extent> masks(mask_shape shape, mask_rows rows, int copies) {
    mask_extent const first = make_mask_extent(shape, rows, 3, 7, 11, 0, copies);
    return {first, make_mask_extent(shape, rows, 3, 6, 10, first.count, copies)};
  }
  static mask_edit edit(mask_sharing sharing, std::vector<int> layers, index_t heads) {
    return {.scale = 1.7f,
            .clamp = 0.1f,
            .lower_clamp = -0.9f,
            .sites = {.sharing = sharing, .layers = std::move(layers), .model_layers = model_layers, .heads = heads}};
  }
  /// H with entries above, between, below and at both clamps.
  static std::vector<double> values(index_t count) {
    auto h = random_values(count, 31, 0.6);
    for (double& x : h) x -= 0.4;
    h[0] = double(0.1f);
    h[1] = double(-0.9f);
    h[2] = 0.7;
    h[3] = -2;
    return h;
  }
};

template <class F>
void for_each_setting(F&& f) {
  for (mask_sharing const sharing : {mask_sharing::all, mask_sharing::per_layer, mask_sharing::per_head})
    for (std::vector<int> const& layers : {std::vector<int>{}, std::vector<int>{1, 3}})
      for (mask_shape const shape : {mask_shape::pair, mask_shape::column})
        for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
          CAPTURE(int(sharing), layers.size(), int(shape), int(rows));
          f(sharing, layers, shape, rows);
        }
}

}  // namespace

TEST_CASE(
    "mask sharing: layers and heads meet in a parameter exactly where they share an H, and other layers have none") {
  index_t const heads = 4;
  for_each_setting([&](mask_sharing sharing, std::vector<int> const& layers, mask_shape shape, mask_rows rows) {
    reference_backend b;
    mask_edit const edit = shared_test::edit(sharing, layers, heads);
    int const edited = layers.empty() ? model_layers : int(layers.size());
    REQUIRE(edit.sites.copies() == (sharing == mask_sharing::all         ? 1
                                    : sharing == mask_sharing::per_layer ? edited
                                                                         : edited * int(heads)));
    auto const masks = shared_test::masks(shape, rows, edit.sites.copies());
    attention::learned_mask<reference_backend> const policy(b, shape, masks, edit);
    // The mask of the first layer that sees one stands for "which entry of an H is it".
    attention::learned_mask<reference_backend> const single(b, shape, shared_test::masks(shape, rows, 1));
    std::map<index_t, std::vector<int>> owner;  // parameter -> sequence, entry, layer and head where these do not share
    for (int layer = 0; layer < model_layers; ++layer)
      for (int head = 0; head < heads; ++head)
        for (int tag = -1; tag <= 2; ++tag)
          for (int w = 0; w < 11; ++w)
            for (int v = 0; v <= w; ++v) {
              score_site const at{layer, head, tag, w, v};
              bool const in_layers = layers.empty() || std::find(layers.begin(), layers.end(), layer) != layers.end();
              index_t const i = policy.params().parameter(at), entry = in_layers ? single.params().parameter(at) : -1;
              REQUIRE((i >= 0) == (entry >= 0));
              key_range const keys = policy.params().keys(at);
              REQUIRE((v >= keys.first && v < keys.last) == (i >= 0));
              if (i < 0) continue;
              std::vector<int> const wanted{tag, int(entry), sharing == mask_sharing::all ? 0 : layer,
                                            sharing == mask_sharing::per_head ? head : 0};
              auto const [known, fresh] = owner.try_emplace(i, wanted);
              REQUIRE(known->second == wanted);
              REQUIRE((i >= masks[std::size_t(tag)].offset &&
                       i < masks[std::size_t(tag)].offset + masks[std::size_t(tag)].count));
            }
    std::set<std::vector<int>> distinct;
    for (auto const& [i, who] : owner) distinct.insert(who);
    CHECK(distinct.size() == owner.size());
    CHECK(index_t(owner.size()) == policy.parameter_count());
  });
}

TEST_CASE(
    "mask sharing: gradients of parameters and of q, k, v agree with the complex step, also between and at the "
    "clamps") {
  for_each_setting([&](mask_sharing sharing, std::vector<int> const& layers, mask_shape shape, mask_rows rows) {
    reference_backend b;
    mask_edit const edit = shared_test::edit(sharing, layers, 4);
    attention::learned_mask<reference_backend> const policy(b, shape,
                                                            shared_test::masks(shape, rows, edit.sites.copies()), edit);
    tree_problem const p(shared_test::tree(), 4, 2, 3, 3);
    auto const h = shared_test::values(policy.parameter_count());
    auto const loss = [&](std::vector<complex> const& x, std::vector<complex> const& at) {
      return weighted_sum(p.forward(x, policy.params(), at).out, p.dout);
    };
    auto const g = p.backward(p.qkv, policy.params(), h);
    CHECK(relative_difference(g.dparameters, complex_step_gradient(h, [&](auto const& at) {
                                return loss(converted<complex>(p.qkv), at);
                              })) < 1e-12);
    CHECK(relative_difference(g.dqkv, complex_step_gradient(p.qkv, [&](auto const& at) {
                                return loss(at, converted<complex>(h));
                              })) < 1e-12);
    if (sharing != mask_sharing::all) return;
    CHECK(g.dparameters[0] != 0);  // at either clamp the derivative passes
    CHECK(g.dparameters[1] != 0);
    CHECK(g.dparameters[2] == 0);
    CHECK(g.dparameters[3] == 0);
  });
}

TEST_CASE("mask sharing: a layer that sees no mask is unedited bit for bit and gives no gradient, on both backends") {
  std::vector<int> const layers{1, 3};
  reference_backend plain;
  cpu_backend fast({.threads = 2});
  tree_problem const p(shared_test::tree(), 6, 2, 24, 2);
  auto const check = [&](auto& b, auto const& x) {
    using T = std::remove_cvref_t<decltype(x[0])>;
    mask_edit const edit = shared_test::edit(mask_sharing::per_layer, layers, 6);
    attention::learned_mask const policy(
        b, mask_shape::pair,
        std::span<mask_extent const>(shared_test::masks(mask_shape::pair, mask_rows::all_later, 2)), edit);
    auto const h = converted<T>(shared_test::values(policy.parameter_count()));
    auto const o = p.forward(x, policy.params(), h, b), none = p.forward(x, attention::none{}.params(), {}, b);
    CHECK(o.out == none.out);
    CHECK(o.lse == none.lse);
    for (T const g : p.backward(x, policy.params(), h, b).dparameters) CHECK(g == 0);
  };
  check(plain, p.qkv);
  check(fast, converted<float>(p.qkv));
}

TEST_CASE("mask sharing: cpu_backend agrees with the plain loops in both passes") {
  tree_problem const p(shared_test::tree(), 6, 2, 24, 3);
  for_each_setting([&](mask_sharing sharing, std::vector<int> const& layers, mask_shape shape, mask_rows rows) {
    reference_backend plain;
    cpu_backend fast({.threads = 2});
    mask_edit const edit = shared_test::edit(sharing, layers, 6);
    auto const masks = shared_test::masks(shape, rows, edit.sites.copies());
    attention::learned_mask<reference_backend> const exact(plain, shape, masks, edit);
    attention::learned_mask<cpu_backend> const policy(fast, shape, masks, edit);
    auto const h = shared_test::values(exact.parameter_count());
    auto const x = converted<float>(p.qkv), hf = converted<float>(h);
    CHECK(relative_difference(p.forward(x, policy.params(), hf, fast).out, p.forward(p.qkv, exact.params(), h).out) <
          1e-5);
    auto const got = p.backward(x, policy.params(), hf, fast);
    auto const expected = p.backward(p.qkv, exact.params(), h);
    CHECK(relative_difference(got.dqkv, expected.dqkv) < 1e-5);
    CHECK(relative_difference(got.dparameters, expected.dparameters) < 1e-5);
  });
}

TEST_CASE("mask sharing: layers that the model lacks, and extents with another number of H, are errors") {
  reference_backend b;
  auto const make = [&](mask_edit const& edit, int copies) {
    attention::learned_mask<reference_backend>(
        b, mask_shape::pair, shared_test::masks(mask_shape::pair, mask_rows::all_later, copies), edit);
  };
  auto const layers = [](std::vector<int> l) { return shared_test::edit(mask_sharing::all, std::move(l), 4); };
  CHECK_THROWS_WITH(make(layers({1, 5}), 1),
                    ATMANRL_CONTAINS("mask layer 5 stands after layer 1 for a model of 5 layers"));
  CHECK_THROWS_AS(make(layers({3, 1}), 1), usage_error);
  CHECK_THROWS_AS(make(layers({1, 1}), 1), usage_error);
  CHECK_THROWS_AS(make(layers({-1}), 1), usage_error);
  CHECK_NOTHROW(make(layers({0, 4}), 1));
  CHECK_THROWS_WITH(make(shared_test::edit(mask_sharing::per_layer, {}, 4), 1),
                    ATMANRL_CONTAINS("1 separate H where the layers and heads need 5"));
}

}  // namespace mask_sharing_test
