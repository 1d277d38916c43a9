#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "attention/problem.hpp"
#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace attention_test {
namespace {

// Edits every score, depends on everything a site holds, and differentiates itself.
struct wavy {
  template <class T>
  T operator()(T score, score_site at) const {
    using std::tanh;
    return tanh(score * 0.5f) * (1.0f + 0.25f * float(at.head % 3)) +
           score * (0.125f * float((at.query + at.key + at.sequence) % 4));
  }
};

// Looks at the row's smallest score.
struct shifted {
  static constexpr bool needs_row_min = true;
  template <class T>
  T operator()(T score, score_site at, T row_min) const {
    return at.key % 3 == 1 ? (score - row_min) * 0.1f + row_min : score;
  }
};

// The same on half of the score, in a window of nine keys: those before it are no scores of the row.
struct shifted_in_window : shifted {
  static bool hidden(score_site at) { return at.query - at.key >= 9; }
  template <class T>
  T for_row_min(T score, score_site at) const {
    return hidden(at) ? T(std::numeric_limits<float>::infinity()) : score * 0.5f;
  }
  template <class T>
  T operator()(T score, score_site at, T row_min) const {
    return hidden(at) ? T(-std::numeric_limits<float>::infinity()) : shifted::operator()(score * 0.5f, at, row_min);
  }
};

// Parameters that all sequences, and heads of both key-value heads, have in common.
struct shared_factor {
  index_t parameter(score_site at) const { return at.query - at.key < 5 ? at.query - at.key : -1; }
  template <class T>
  T operator()(T score, T value, score_site) const {
    return score * value + value * value;
  }
};

// A parameter for every key below 70 of every other row, one after the other; the edit looks at the site, is linear in
// nothing and may be asked only about keys that it names.
template <bool InOrder>
struct bumpy {
  static constexpr bool separate_sequences = true, consecutive_parameters = InOrder;
  static constexpr int named = 70;
  index_t parameter(score_site at) const {
    return at.query % 2 == 0 && at.key >= 3 && at.key < named ? named * at.sequence + at.key : -1;
  }
  key_range keys(score_site at) const {
    return at.query % 2 == 0 ? key_range{3, std::min(at.query + 1, named)} : key_range{5, 2};
  }
  template <class T>
  T operator()(T score, T value, score_site at) const {
    using std::tanh;
    if (at.key < 3 || at.key > at.query || at.key >= named) throw std::out_of_range("a key that was not named");
    return score * tanh(value) + tanh(score * value) * (0.25f * float((at.key + at.head) % 3));
  }
};

struct heads {
  index_t query, kv, dim;
};

// Of weights, and with bf16 ones of the instructions. This machine's own, and the twin of those that it may not have.
struct way {
  bool bf16_weights;
  bf16_products products;
};
std::vector<way> ways() {
  using enum bf16_products;
  return {{false, by_processor}, {true, by_processor}, {true, amx_twin}};
}
bool rounds_factors(cpu_backend const& b) {
  using enum bf16_products;
  return b.products() == pairs || b.products() == amx || b.products() == amx_twin;
}
bool by_amx(cpu_backend const& b) {
  return b.products() == bf16_products::amx || b.products() == bf16_products::amx_twin;
}

std::vector<std::vector<node>> trees() {
  std::vector<std::vector<node>> all{ragged_trees()};
  for (int length : {1, 2, 3, 17, 64, 129}) all.push_back({{-1, 0, length, 0}});
  all.push_back({{-1, 100, 1, 0}, {-1, 31, 40, 1}});                                           // cached segments
  all.push_back({{-1, 0, 37, 0}, {0, 0, 70, 1}, {0, 0, 33, 2}, {1, 0, 9, 3}, {1, 5, 20, 4}});  // three levels
  all.push_back({{-1, 45, 0, 0},
                 {0, 3, 1, 1},
                 {0, 0, 1, 2},
                 {0, 33, 1, 3},
                 {0, 7, 1, 4},
                 {0, 1, 1, 5},
                 {0, 64, 2, 6}});  // decoding
  return all;
}

// Float results against the plain loops in double.
template <class Params>
void check_against_reference(tree_problem const& p, Params params, std::vector<double> const& parameters = {}) {
  cpu_backend backend({.threads = 2});
  auto const expected = p.forward(p.qkv, params, parameters);
  auto const got = p.forward(converted<float>(p.qkv), params, converted<float>(parameters), backend);
  CHECK(relative_difference(got.out, expected.out) < 1e-5);
  CHECK(relative_difference(got.lse, expected.lse) < 1e-5);
  CHECK(relative_difference(got.keys, expected.keys) < 1e-6);
  CHECK(relative_difference(got.values, expected.values) < 1e-6);
  if constexpr (!kernels::has_row_min<Params>) {
    auto const expected_gradients = p.backward(p.qkv, params, parameters);
    auto const gradients = p.backward(converted<float>(p.qkv), params, converted<float>(parameters), backend);
    CHECK(relative_difference(gradients.dqkv, expected_gradients.dqkv) < 1e-5);
    CHECK(relative_difference(gradients.dparameters, expected_gradients.dparameters) < 1e-5);
  }
}

std::vector<node> two_rollouts() { return {{-1, 20, 17, 7}, {0, 0, 60, 0}, {0, 2, 45, 1}, {-1, 0, 9, 2}}; }

// Masks of the second and third sequence of two_rollouts().
std::vector<mask_extent> masks(mask_shape s, mask_rows rows) {
  mask_extent const first = make_mask_extent(s, rows, 37, 80, 97, 0);
  return {first, make_mask_extent(s, rows, 41, 75, 84, first.count)};
}

template <class T>
std::vector<T> rows_of(std::vector<T> const& all, index_t first, index_t count, index_t width) {
  return {all.begin() + first * width, all.begin() + (first + count) * width};
}

}  // namespace

TEST_CASE("cpu attention: forward and backward agree with plain loops on every tree and grouping") {
  for (auto const& tree : trees())
    for (heads const h : {heads{1, 1, 16}, heads{3, 1, 64}, heads{8, 1, 8}, heads{4, 2, 33}, heads{10, 2, 32}}) {
      CAPTURE(tree.size(), tree.front().rows, h.query, h.kv, h.dim);
      check_against_reference(tree_problem(tree, h.query, h.kv, h.dim), attention::none::params_type{});
    }
  for (index_t group = 1; group <= 8; ++group) {
    CAPTURE(group);
    check_against_reference(tree_problem(ragged_trees(), 2 * group, 2, 12), attention::none::params_type{});
  }
}

TEST_CASE("cpu attention: an edit of every score, and one that looks at the row's smallest score") {
  for (auto const& tree : trees()) {
    CAPTURE(tree.size(), tree.front().rows);
    check_against_reference(tree_problem(tree, 6, 2, 24, 3), wavy{});
    check_against_reference(tree_problem(tree, 6, 2, 24, 3), shifted{});
    check_against_reference(tree_problem(tree, 6, 2, 24, 3), shifted_in_window{});
  }
}

TEST_CASE(
    "cpu attention: parameters that all sequences share collect from all of them, the same bits for any number of "
    "threads") {
  auto const parameters = random_values(5, 23, 0.5);
  for (auto const& tree : trees()) {
    CAPTURE(tree.size(), tree.front().rows);
    tree_problem const p(tree, 6, 2, 24);
    if (p.longest < 2) continue;  // a softmax over one key has no gradient
    check_against_reference(p, shared_factor{}, parameters);
    CHECK(same_for_any_threads([&](cpu_backend& b) {
      return p.backward(converted<float>(p.qkv), shared_factor{}, converted<float>(parameters), b).dparameters;
    }));
  }
}

TEST_CASE("cpu attention: learned masks of both shapes and rows, forward and backward") {
  for (mask_shape const s : {mask_shape::pair, mask_shape::column}) {
    for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
      CAPTURE(int(s), int(rows));
      auto const extents = masks(s, rows);
      reference_backend memory;
      attention::learned_mask<reference_backend> const policy(memory, s, extents, 2.0f);
      auto parameters = random_values(policy.parameter_count(), 21, 0.5);
      for (double& x : parameters) x = double(float(x - 0.5));
      parameters[1] = 0;
      check_against_reference(tree_problem(two_rollouts(), 6, 2, 32), policy.params(), parameters);
    }
  }
}

TEST_CASE("cpu attention: parameters one after the other give the same numbers as when asked for one by one") {
  for (auto const& tree : trees()) {
    CAPTURE(tree.size(), tree.front().rows);
    int most = 0;
    for (node const& n : tree) most = std::max(most, n.tag);
    auto const parameters = random_values(bumpy<true>::named * (most + 1), 29, 0.5);
    tree_problem const p(tree, 6, 2, 24);
    if (p.longest < 5) continue;
    check_against_reference(p, bumpy<true>{}, parameters);
    cpu_backend backend({.threads = 2});
    auto const gradient = [&](auto params) {
      return p.backward(converted<float>(p.qkv), params, converted<float>(parameters), backend);
    };
    auto const in_order = gradient(bumpy<true>{}), one_by_one = gradient(bumpy<false>{});
    CHECK(relative_difference(in_order.dqkv, one_by_one.dqkv) < 1e-6);
    CHECK(relative_difference(in_order.dparameters, one_by_one.dparameters) < 1e-6);
  }
}

TEST_CASE("cpu attention: with bf16 weights it is that of factors that were rounded before") {
  auto const check = [](tree_problem p, auto params, std::vector<double> const& parameters) {
    // With heads of 16 or 64 the scale is a power of two: scores of rounded queries and keys are exact up to float.
    for (auto* const values : {&p.qkv, &p.cached_keys, &p.cached_values, &p.dout})
      for (double& x : *values) x = bf16(float(x));
    p.extents.bf16_weights = true;
    auto const expected = p.forward(p.qkv, params, parameters);
    auto const expected_gradients = p.backward(p.qkv, params, parameters);
    auto const qkv = converted<float>(p.qkv);
    auto const values = converted<float>(parameters);
    constexpr auto twin = bf16_products::amx_twin;
    for (cpu_options const& options :
         {cpu_options{.threads = 2}, {.threads = 2, .exact_activations = true}, {.threads = 2, .products = twin}}) {
      cpu_backend backend(options);
      CAPTURE(int(backend.products()));
      bool const rounds = rounds_factors(backend);
      auto const got = p.forward(qkv, params, values, backend);
      auto const gradients = p.backward(qkv, params, values, backend);
      CHECK(relative_difference(got.lse, expected.lse) < 1e-5);
      // Probabilities are rounded for AMX, a sum of them errs by up to 2^-9.
      double const out = relative_difference(got.out, expected.out);
      CHECK(out < (by_amx(backend) ? 4e-3 : 1e-5));
      if (by_amx(backend) && p.longest > 1) CHECK(out > 1e-5);
      double const dqkv = relative_difference(gradients.dqkv, expected_gradients.dqkv);
      CHECK(dqkv < (rounds ? 1e-2 : 1e-5));  // a score's gradient errs by up to 2^-9 of itself
      if (rounds && p.longest > 1) CHECK(dqkv > 1e-5);
      CHECK(relative_difference(gradients.dparameters, expected_gradients.dparameters) < (rounds ? 1e-2 : 1e-5));
    }
  };
  for (auto const& tree : trees()) {
    for (heads const h : {heads{3, 1, 64}, heads{8, 2, 16}}) {
      CAPTURE(tree.size(), tree.front().rows, h.query, h.kv, h.dim);
      check(tree_problem(tree, h.query, h.kv, h.dim), attention::none::params_type{}, {});
    }
  }
  for (way const w : ways()) {
    cpu_backend backend({.threads = 2, .products = w.products});
    if (!w.bf16_weights || !rounds_factors(backend)) continue;
    // Numbers that bf16 does not hold show that queries and keys are rounded.
    tree_problem p(trees().front(), 3, 1, 64);
    auto const plain = p.forward(converted<float>(p.qkv), attention::none::params_type{}, {}, backend).lse;
    p.extents.bf16_weights = true;
    auto const rounded = p.forward(converted<float>(p.qkv), attention::none::params_type{}, {}, backend).lse;
    CHECK(relative_difference(rounded, plain) > 1e-5);
    CHECK(relative_difference(rounded, plain) < 1e-2);
  }
  auto const extents = masks(mask_shape::column, mask_rows::all_later);
  reference_backend memory;
  attention::learned_mask<reference_backend> const policy(memory, mask_shape::column, extents, 2.0f);
  auto parameters = random_values(policy.parameter_count(), 27, 0.5);
  for (double& x : parameters) x = double(float(x));
  check(tree_problem(two_rollouts(), 6, 2, 64), policy.params(), parameters);
}

TEST_CASE("cpu attention: a cache in bfloat16 gives the bits of one that holds the rounded keys and values") {
  auto const [bf16_weights, products] = GENERATE(from_range(ways()));
  for (auto const& tree : trees()) {
    for (heads const h : {heads{3, 1, 64}, heads{4, 2, 33}, heads{10, 2, 32}, heads{8, 1, 8}}) {
      CAPTURE(tree.size(), tree.front().rows, h.query, h.kv, h.dim, bf16_weights, int(products));
      cpu_backend backend({.threads = 2, .products = products});
      tree_problem p(tree, h.query, h.kv, h.dim);
      p.extents.bf16_weights = bf16_weights;
      auto const qkv = converted<float>(p.qkv);
      auto const got = p.forward_in<bf16>(qkv, wavy{}, {}, backend);
      auto const gradients = p.backward_in<bf16>(qkv, wavy{}, {}, backend);
      auto const rounded = p.round_keys_and_values(qkv);
      auto const expected = p.forward(rounded, wavy{}, {}, backend);
      CHECK(converted<float>(got.keys) == expected.keys);
      CHECK(converted<float>(got.values) == expected.values);
      CHECK(same_bits(got.out, expected.out));
      CHECK(same_bits(got.lse, expected.lse));
      CHECK(same_bits(gradients.dqkv, p.backward(rounded, wavy{}, {}, backend).dqkv));
    }
  }
}

TEST_CASE("cpu attention: the same bits for any number of threads") {
  way const w = GENERATE(from_range(ways()));
  CAPTURE(w.bf16_weights, int(w.products));
  auto const extents = masks(mask_shape::column, mask_rows::all_later);
  reference_backend memory;
  attention::learned_mask<reference_backend> const policy(memory, mask_shape::column, extents, 2.0f);
  auto const parameters = random_floats(policy.parameter_count(), 22);
  auto const all_of = [&](tree_problem p, auto params, std::vector<float> const& values) {
    p.extents.bf16_weights = w.bf16_weights;
    return same_for_any_threads(
        [&](cpu_backend& b) {
          auto const forward = p.forward(converted<float>(p.qkv), params, values, b);
          auto const backward = p.backward(converted<float>(p.qkv), params, values, b);
          std::vector<float> all = forward.out;
          for (auto const* v : {&forward.lse, &backward.dqkv, &backward.dparameters})
            all.insert(all.end(), v->begin(), v->end());
          return all;
        },
        w.products);
  };
  CHECK(all_of(tree_problem(two_rollouts(), 9, 3, 64), policy.params(), parameters));
  for (auto const& tree : trees()) CHECK(all_of(tree_problem(tree, 9, 3, 64), attention::none::params_type{}, {}));
}

TEST_CASE("cpu attention: row by row gives the bits of all rows at once, however the keys are split") {
  auto const [bf16_weights, products] = GENERATE(from_range(ways()));
  for (heads const h : {heads{9, 3, 64}, heads{4, 4, 16}, heads{8, 1, 40}}) {
    for (int const length : {1, 5, 40, 77}) {
      CAPTURE(h.query, h.kv, h.dim, length, bf16_weights, int(products));
      cpu_backend backend({.threads = 2, .products = products});
      tree_problem whole({{-1, 0, length, 0}}, h.query, h.kv, h.dim);
      whole.extents.bf16_weights = bf16_weights;
      auto const qkv = converted<float>(whole.qkv);
      auto const expected = whole.forward(qkv, wavy{}, {}, backend);
      index_t const row_width = (h.query + 2 * h.kv) * h.dim, kv_width = h.kv * h.dim;

      // One new row at a time; each key is a segment of its own, and the cache is filled from its end.
      std::vector<float> keys(std::size_t(length * kv_width)), values(keys.size());
      for (int position = 0; position < length; ++position) {
        std::vector<attention_segment> segments;
        for (int i = 0; i <= position; ++i) segments.push_back({length - 1 - i, i, 1, i == position ? 0 : -1});
        attention_sequence const sequence{0, 1, position, 0, position + 1, 0};
        std::array const one_tree{0, 1};
        int const target = length - 1 - position;
        attention_plan<> const plan{
            {&sequence, {1}}, {segments.data(), {position + 1}}, {one_tree.data(), {2}}, position + 1};
        auto const row = rows_of(qkv, position, 1, row_width);
        view<float const, 3> const in(row.data(), {1, h.query + 2 * h.kv, h.dim});
        view<float, 3> const k(keys.data(), {length, h.kv, h.dim}), v(values.data(), {length, h.kv, h.dim});
        append_keys_and_values(backend, whole.extents, in, {&target, {1}}, k, v);
        std::vector<float> out(std::size_t(h.query * h.dim)), lse(std::size_t(h.query));
        attention_forward(backend, whole.extents, in, k, v, plan, wavy{}, nullptr,
                          view<float, 3>(out.data(), {1, h.query, h.dim}), as(lse, {1, h.query}));
        CHECK(same_bits(out, rows_of(expected.out, position, 1, h.query * h.dim)));
        CHECK(same_bits(lse, rows_of(expected.lse, position, 1, h.query)));
      }
    }
  }
}

TEST_CASE("cpu attention: a sequence has the same bits and gradients alone and beside its siblings") {
  auto const [bf16_weights, products] = GENERATE(from_range(ways()));
  CAPTURE(bf16_weights, int(products));
  index_t const heads = 9, kv = 3, dim = 64, width = (heads + 2 * kv) * dim;
  cpu_backend backend({.threads = 2, .products = products});
  // A prompt of 51 rows and five rollouts of r rows each.
  for (int const r : {1, 2, 30}) {
    std::vector<node> tree{{-1, 0, 51, 0}};
    for (int i = 0; i < 5; ++i) tree.push_back({0, 0, r + i / 3, 1 + i});
    tree_problem together(tree, heads, kv, dim);
    together.extents.bf16_weights = bf16_weights;
    auto const qkv = converted<float>(together.qkv);
    auto const expected = together.forward(qkv, wavy{}, {}, backend);
    auto const expected_gradients = together.backward(qkv, wavy{}, {}, backend).dqkv;
    index_t first = 51;
    for (int i = 0; i < 5; ++i) {
      int const rows = r + i / 3;
      tree_problem alone({{-1, 0, 51, 0}, {0, 0, rows, 1 + i}}, heads, kv, dim);
      alone.extents.bf16_weights = bf16_weights;
      auto x = rows_of(qkv, 0, 51, width);
      auto const own = rows_of(qkv, first, rows, width);
      x.insert(x.end(), own.begin(), own.end());
      auto const got = alone.forward(x, wavy{}, {}, backend);
      for (int threads = 1; threads <= 3; threads += 2) {  // one thread has all rows of a sequence, three share them
        cpu_backend some({.threads = threads, .products = products});
        tree_problem own_gradients = alone;
        own_gradients.dout = rows_of(together.dout, 0, 51, heads * dim);
        auto const own_dout = rows_of(together.dout, first, rows, heads * dim);
        own_gradients.dout.insert(own_gradients.dout.end(), own_dout.begin(), own_dout.end());
        CHECK(same_bits(rows_of(own_gradients.backward(x, wavy{}, {}, some).dqkv, 51, rows, width),
                        rows_of(expected_gradients, first, rows, width)));
      }
      CHECK(same_bits(rows_of(got.out, 51, rows, heads * dim), rows_of(expected.out, first, rows, heads * dim)));
      CHECK(same_bits(rows_of(got.lse, 51, rows, heads), rows_of(expected.lse, first, rows, heads)));
      first += rows;
    }
  }
}

TEST_CASE("cpu attention: a sum that AMX flushes to a negative zero has one sign, whatever rows follow") {
  constexpr index_t dim = 32, group = 3, row_width = (group + 2) * dim;
  constexpr float least = std::numeric_limits<float>::min();
  // All probabilities are one. After two steps over keys the sums are -least / 2, which the unit does not hold.
  std::vector<float> qkv(std::size_t(70 * row_width));
  for (index_t c = 0; c < dim; ++c) {
    qkv[std::size_t((group + 1) * dim + c)] = -1.5f * least;
    qkv[std::size_t(32 * row_width + (group + 1) * dim + c)] = least;
  }
  cpu_backend backend({.threads = 1, .products = bf16_products::amx_twin});
  auto const outputs_of_row_63 = [&](int rows) {
    tree_problem p({{-1, 0, rows, 0}}, group, 1, dim);
    p.extents.bf16_weights = true;
    auto const all = p.forward(rows_of(qkv, 0, rows, row_width), attention::none::params_type{}, {}, backend).out;
    return rows_of(all, 63, 1, group * dim);
  };
  auto const alone = outputs_of_row_63(64), followed = outputs_of_row_63(70);
  CHECK(same_bits(alone, followed));
  CHECK(same_bits(alone, std::vector<float>(std::size_t(group * dim))));
}

TEST_CASE("cpu attention: AMX's bits are those of the twin") {
  if (cpu::this_processor().amx != cpu::amx_access::granted) {
    WARN("this processor has no AMX: only its products are tested, by an emulation (amx_test.cpp)");
    return;
  }
  for (auto const& tree : trees()) {
    CAPTURE(tree.size(), tree.front().rows);
    tree_problem p(tree, 6, 2, 40);
    p.extents.bf16_weights = true;
    auto const qkv = converted<float>(p.qkv);
    cpu_backend native({.threads = 2, .products = bf16_products::amx}),
        twin({.threads = 2, .products = bf16_products::amx_twin});
    CHECK(same_bits(p.forward(qkv, wavy{}, {}, native).out, p.forward(qkv, wavy{}, {}, twin).out));
    CHECK(same_bits(p.backward(qkv, wavy{}, {}, native).dqkv, p.backward(qkv, wavy{}, {}, twin).dqkv));
  }
}

}  // namespace attention_test
