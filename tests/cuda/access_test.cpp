// How kernels reach memory, counted by the tracer: whole sectors of device memory, 16 bytes at a time, and no conflicts
// between the banks of shared memory, for rows that vectors divide.
#include <atmanrl/ops/matmul_gated.hpp>
#include <atmanrl/ops/matmul_rope_append.hpp>

#include "cuda/attention_on_device.hpp"
#include "cuda/attention_policies.hpp"
#include "cuda/both_backends.hpp"

#if defined(ATMANRL_CUDA_EMULATION)
#  include "cuda_emulation/trace.hpp"

using namespace atmanrl_test;

namespace {

bool const traced = cuda_emulation::trace::take_lines != nullptr;

/// What is not as it should be among the lines that make up `share` or more of what the run moves in their memory, one
/// sentence each: requests to device memory that move more than 1.25 times what their bytes need, accesses of less than
/// `bytes` where a request is for more than one sector, conflicts between banks of shared memory. The little that is
/// left out are rows' sums, plans and parameters.
std::vector<std::string> wasteful(auto const& run, unsigned bytes = 16, double share = 0.01) {
  (void)cuda_emulation::trace::take_lines();
  run();
  auto const lines = cuda_emulation::trace::take_lines();
  std::uint64_t of_shared[2] = {};
  for (auto const& l : lines) of_shared[l.shared] += l.transfers;
  std::vector<std::string> found;
  if (of_shared[false] == 0) found.push_back("no access was counted");
  for (auto const& l : lines) {
    if (l.requests < 10 || double(l.transfers) < share * double(of_shared[l.shared])) continue;
    if (l.atomic) continue;  // counting into buckets: who meets whom is the data's doing
    auto const complain = [&](std::string const& what) {
      found.push_back(fmt::format("{}: {} {}s of {} memory, {} bytes a thread, {}", l.place, l.requests,
                                  l.write ? "write" : "read", l.shared ? "shared" : "device", l.bytes, what));
    };
    // Lanes that left a key out count their accesses differently, and so fall out of step with their neighbours.
    if (l.excess() > (l.shared ? 1.05 : 1.25))
      complain(fmt::format("move {} {} where {} would do", l.transfers, l.shared ? "passes" : "sectors", l.ideal));
    if (!l.shared && l.bytes < bytes && l.ideal > l.requests) complain(fmt::format("where {} would do", bytes));
  }
  return found;
}

std::vector<std::string> const nothing;

}  // namespace

TEST_CASE("cuda accesses: norms, activations, rotations and rows move whole sectors") {
  if (!traced) return;
  cuda_backend b;
  inputs<cuda_backend, float> const in(b);
  index_t const rows = 3, dim = 1024;
  auto const x = in.random({rows, dim}, 1), dy = in.random({rows, dim}, 2), gate_up = in.random({rows, 2 * dim}, 3);
  auto const cosine = in.random({8, 32}, 5), sine = in.random({8, 32}, 6);
  auto const gain = in.random({dim}, 4);
  auto const ids = in.ids({2, 0, 2});
  auto y = in.empty({rows, dim}), dx = in.random({rows, dim}, 7), dgate_up = in.empty({rows, 2 * dim});
  auto inv_rms = in.empty({rows}), dgain = in.random({dim}, 8);
  auto heads = in.random({rows, 16, 64}, 9);
  CHECK(wasteful([&] { rms_norm(b, x.cview(), gain.cview(), 1e-5f, y.view(), inv_rms.view()); }) == nothing);
  CHECK(wasteful([&] { rms_norm_recompute(b, x.cview(), gain.cview(), inv_rms.cview(), y.view()); }) == nothing);
  CHECK(wasteful([&] {
          rms_norm_backward(b, x.cview(), gain.cview(), inv_rms.cview(), dy.cview(), dx.view(), dgain.view());
        }) == nothing);
  CHECK(wasteful([&] { swiglu(b, gate_up.cview(), y.view()); }) == nothing);
  CHECK(wasteful([&] { swiglu_backward(b, gate_up.cview(), dy.cview(), dgate_up.view()); }) == nothing);
  CHECK(wasteful([&] { rope(b, heads.view(), 12, ids.cview(), cosine.cview(), sine.cview()); }) == nothing);
  // What products take: 8 bytes of a thread, 256 of a warp.
  tensor<cuda_backend, bf16, 2> factor(b, {rows, dim}), dgate_up_factor(b, {rows, 2 * dim});
  tensor<cuda_backend, bf16, 3> heads_factor(b, {rows, 16, 64});
  auto copy = in.empty({rows, dim});
  CHECK(wasteful([&] { rms_norm(b, x.cview(), gain.cview(), 1e-5f, factor.view(), inv_rms.view(), copy.view()); }, 8) ==
        nothing);
  CHECK(wasteful(
            [&] {
              rms_norm_backward(b, x.cview(), gain.cview(), inv_rms.cview(), dy.cview(), dx.view(), {}, factor.view());
            },
            8) == nothing);
  CHECK(wasteful([&] { swiglu(b, gate_up.cview(), factor.view()); }, 8) == nothing);
  CHECK(wasteful([&] { swiglu_backward(b, gate_up.cview(), dy.cview(), dgate_up_factor.view()); }, 8) == nothing);
  CHECK(wasteful(
            [&] {
              rope_into(b, std::as_const(heads).cview(), 12, ids.cview(), cosine.cview(), sine.cview(),
                        rotation::inverse, heads_factor.view());
            },
            8) == nothing);
  attention_extents const e{.heads = 12, .kv_heads = 2, .head_dim = 64};
  tensor<cuda_backend, bf16, 3> keys(b, {rows, 2, 64}), values(b, keys.shape());
  auto const cache_rows = in.ids({1, 0, 2});
  CHECK(wasteful(
            [&] {
              rope_and_append(b, e, heads.view(), ids.cview(), cosine.cview(), sine.cview(), cache_rows.cview(),
                              keys.view(), values.view());
            },
            8) == nothing);
  CHECK(wasteful([&] { gather_rows(b, x.cview(), ids.cview(), y.view()); }) == nothing);
  CHECK(wasteful([&] { add_rows(b, dy.cview(), ids.cview(), dx.view()); }) == nothing);
  CHECK(wasteful([&] { add_bias(b, gain.cview(), dx.view()); }) == nothing);
  CHECK(wasteful([&] { add_bias_backward(b, dy.cview(), dgain.view()); }) == nothing);
  CHECK(wasteful([&] { copy_columns(b, gate_up.cview(), dim, y.view(), 0, dim); }) == nothing);
}

TEST_CASE("cuda accesses: attention of every kind moves whole sectors, without conflicts between banks") {
  if (!traced) return;
  cuda_backend b;
  auto const run = [&]<class K>(K, std::vector<node> const& tree, index_t dim, unsigned bytes, auto params,
                                double share = 0.01, std::vector<double> const& parameters = {}, bool backward = true) {
    tree_problem const p(tree, 6, 2, dim);
    return wasteful([&] { (void)on_device<float, K>(b, p, p.qkv, params, parameters, {.backward = backward}); }, bytes,
                    share);
  };
  std::vector<node> const rollouts{{-1, 20, 30, 7}, {0, 0, 40, 0}}, decoding{{-1, 290, 0, 0}, {0, 3, 1, 1}};
  CHECK(run(float{}, rollouts, 64, 16, unedited{}) == nothing);
  CHECK(run(float{}, rollouts, 128, 16, unedited{}) == nothing);
  CHECK(run(bf16{}, rollouts, 64, 8, unedited{}) ==
        nothing);  // new keys and values are rounded on the way to the cache
  // The parts of a row are merged by a thread per element.
  CHECK(run(float{}, decoding, 64, 4, unedited{}, 0.01, {}, false) == nothing);
  CHECK(run(bf16{}, decoding, 128, 4, unedited{}, 0.01, {}, false) == nothing);
  for (mask_shape const s : {mask_shape::pair, mask_shape::column}) {
    mask_extent const mask = make_mask_extent(s, mask_rows::answer_rows, 50, 70, 90, 0);
    attention::learned_mask<cuda_backend> const policy(b, s, std::span(&mask, 1), 2.0f);
    auto const values = random_values(policy.parameter_count(), 21, 0.5);
    // The edit asks for its values where its mask lies; in these small problems that is up to 2 % of what is moved.
    CHECK(run(float{}, rollouts, 64, 16, policy.params(), 0.05, values) == nothing);
    CHECK(run(float{}, {{-1, 50, 0, 7}, {0, 20, 20, 0}}, 64, 16, policy.params(), 0.05, values) == nothing);
  }
}

TEST_CASE("cuda accesses: attention of models with bf16 weights moves whole sectors, without conflicts between banks") {
  if (!traced) return;
  cuda_backend b;
  auto const run = [&]<class K>(K, std::vector<node> const& tree, index_t dim, auto params, double share = 0.01,
                                std::vector<double> const& parameters = {}) {
    tree_problem p(tree, 8, 2, dim);
    p.extents.bf16_weights = true;
    // Of rounded numbers 8 bytes go to shared memory at a time, and of results to device memory.
    return wasteful([&] { (void)on_device<float, K>(b, p, p.qkv, params, parameters); }, 8, share);
  };
  std::vector<node> const rollouts{{-1, 20, 30, 7}, {0, 0, 40, 0}};
  for (index_t const dim : {16, 32, 64, 128}) {
    CAPTURE(dim);
    CHECK(run(float{}, rollouts, dim, unedited{}) == nothing);
    if (dim > 16) CHECK(run(bf16{}, rollouts, dim, unedited{}) == nothing);  // of 16, rows' sums are more than a little
  }
  mask_extent const mask = make_mask_extent(mask_shape::pair, mask_rows::all_later, 50, 80, 90, 0);
  attention::learned_mask<cuda_backend> const policy(b, mask_shape::pair, std::span(&mask, 1), 2.0f);
  auto const values = random_values(policy.parameter_count(), 21, 0.5);
  // A query's values, and their gradients, lie where its mask begins.
  CHECK(run(float{}, rollouts, 64, policy.params(), 0.1, values) == nothing);
}

TEST_CASE(
    "cuda accesses: products of few rows read the weight once, in whole sectors, without conflicts between banks") {
  if (!traced) return;
  cuda_backend b({.skinny_products = true});
  inputs<cuda_backend, float> const in(b);
  index_t const dim = 2048, outputs = 32, of_a_block = 16;
  weight<cuda_backend, bf16> w(b, outputs, dim);
  w.assign_rows(b, 0, in.random({outputs, dim}, 1).cview());
  weight<cuda_backend, bf16> projection(b, 4 * 16, dim);
  projection.assign_rows(b, 0, in.random({4 * 16, dim}, 4).cview());
  for (index_t const rows : {8, 16}) {
    CAPTURE(rows);
    tensor<cuda_backend, bf16, 2> x(b, {rows, dim});
    x.assign(std::vector<bf16>(std::size_t(rows * dim), bf16(1.0f)));
    auto y = in.random({rows, outputs}, 2);
    tensor<cuda_backend, bf16, 2> activated(b, {rows, outputs / 2});
    auto const check = [&](weight<cuda_backend, bf16> const& read, auto const& multiply) {
      CHECK(wasteful(multiply) == nothing);
      (void)cuda_emulation::trace::take_lines();
      multiply();
      std::uint64_t sectors = 0;
      for (auto const& l : cuda_emulation::trace::take_lines())
        if (!l.shared && !l.write && l.bytes == 16) sectors += l.transfers;
      index_t const blocks = read.outputs() / of_a_block;
      CHECK(sectors * 32 == std::uint64_t((read.outputs() + blocks * rows) * dim) * sizeof(bf16));
    };
    check(w, [&] { matmul(b, x.cview(), w.view(), y.view(), store::add); });
    check(w, [&] { matmul_and_swiglu(b, x.cview(), w.view(), y.view(), activated.view()); });
    attention_extents const e{.heads = 2, .kv_heads = 1, .head_dim = 16};
    auto const angles = in.random({2, 8}, 3);
    std::vector<int> each(std::size_t(rows), 1);
    auto const positions = in.ids(each);
    for (int i = 0; i < int(rows); ++i) each[std::size_t(i)] = i;
    auto const cache_rows = in.ids(each);
    tensor<cuda_backend, float, 3> qkv(b, {rows, 4, 16});
    tensor<cuda_backend, bf16, 3> keys(b, {rows, 1, 16}), values(b, keys.shape());
    check(projection, [&] {
      matmul_rope_and_append(b, e, x.cview(), projection.view(), qkv.view(), positions.cview(), angles.cview(),
                             angles.cview(), cache_rows.cview(), keys.view(), values.view());
    });
  }
}

TEST_CASE("cuda accesses: mean attention moves whole sectors") {
  if (!traced) return;
  cuda_backend b;
  tree_problem const p({{-1, 20, 3, 0}, {0, 0, 4, 1}}, 6, 2, 64);
  device_run const with_mean{.backward = false, .mean = true};
  // A warp reads a query and a key, one element a thread.
  CHECK(wasteful([&] { (void)on_device<float>(b, p, p.qkv, unedited{}, {}, with_mean); }, 4) == nothing);
  CHECK(wasteful([&] { (void)on_device<float, bf16>(b, p, p.qkv, unedited{}, {}, with_mean); }, 2) == nothing);
}

TEST_CASE("cuda accesses: new keys and values move whole sectors") {
  if (!traced) return;
  cuda_backend b;
  inputs<cuda_backend, float> const in(b);
  attention_extents const e{0, 6, 2, 64};
  auto const qkv = in.random({20, 10, 64}, 1);
  std::vector<int> rows(20);
  for (int i = 0; i < 20; ++i) rows[std::size_t(i)] = 19 - i;
  auto const cache_rows = in.ids(rows);
  tensor<cuda_backend, float, 3> keys(b, {20, 2, 64}), values(b, {20, 2, 64});
  tensor<cuda_backend, bf16, 3> half_keys(b, {20, 2, 64}), half_values(b, {20, 2, 64});
  CHECK(wasteful([&] { append_keys_and_values(b, e, qkv.cview(), cache_rows.cview(), keys.view(), values.view()); }) ==
        nothing);
  CHECK(
      wasteful(
          [&] { append_keys_and_values(b, e, qkv.cview(), cache_rows.cview(), half_keys.view(), half_values.view()); },
          8) == nothing);
}

TEST_CASE("cuda accesses: a draw and its log-probability go over their rows of logits in whole sectors") {
  if (!traced) return;
  cuda_backend b;
  inputs<cuda_backend, float> const in(b);
  auto const logits = in.random({3, 2048}, 1, 3);
  auto const rows = in.ids({2, 0});
  auto ids = in.ids({0, 0});
  tensor<cuda_backend, std::uint64_t, 1> shares(b, {2});
  shares.assign(std::vector<std::uint64_t>{1ull << 62, 3ull << 61});
  auto log_p = in.empty({2}), entropy = in.empty({2});
  // Packs of the row, but the piece in which the token lies is read one logit a thread.
  for (sample_form const& form : {sample_form{}, {.greedy = true}, {.top_k = 50, .top_p = 0.9, .min_p = 0.01}})
    CHECK(wasteful([&] { sample_tokens(b, logits.cview(), rows.cview(), shares.cview(), 0.7, form, ids.view()); }, 4) ==
          nothing);
  CHECK(wasteful([&] { score_tokens(b, logits.cview(), rows.cview(), ids.cview(), 0.7, log_p.view(), entropy.view()); },
                 16) == nothing);
}

TEST_CASE("cuda accesses: flat arrays, weights and logits move whole sectors") {
  if (!traced) return;
  cuda_backend b;
  inputs<cuda_backend, float> const in(b);
  index_t const size = 4096;
  auto p = in.random({size}, 1), m = in.random({size}, 2), v = in.empty({size});
  auto const g = in.random({size}, 3);
  auto const wide = in.random({64, 64}, 4), h = in.random({3, 64}, 5);
  auto log_p = in.empty({3}), lse = in.empty({3}), entropy = in.empty({3});
  auto dh = in.empty({3, 64});
  auto const ids = in.ids({2, 0, 63});
  v.fill_zero();
  weight<cuda_backend, bf16> w(b, 64, 64), head(b, 1024, 64);
  log_prob_scratch<cuda_backend, float> scratch;
  CHECK(wasteful([&] { adamw_step(b, p.view(), g.cview(), m.view(), v.view(), {}, 1); }) == nothing);
  CHECK(wasteful([&] { sgd_step(b, p.view(), g.cview(), {}); }) == nothing);
  CHECK(wasteful([&] { sgd_step(b, p.view(), g.cview(), m.view(), {}); }) == nothing);
  CHECK(wasteful([&] { lion_step(b, p.view(), g.cview(), m.view(), {}); }) == nothing);
  CHECK(wasteful([&] { scale(b, p.view(), 2.0f); }) == nothing);
  CHECK(wasteful([&] { (void)sum_of_squares(b, p.view()); }) == nothing);
  // Rounding reads 16 bytes of float and writes 8 of bf16; widening goes the other way.
  auto read = in.empty({64, 64});
  auto looked_up = in.empty({3, 1024});
  weight<cuda_backend, bf16> wide_table(b, 64, 1024);
  wide_table.assign_rows(b, 0, in.random({64, 1024}, 7).cview());
  cuda_backend rounding({.bf16_weight_gradients = true});
  inputs<cuda_backend, float> const in_rounding(rounding);
  auto const x = in_rounding.random({64, 64}, 6);
  auto dw = in_rounding.random({64, 64}, 8);
  CHECK(wasteful([&] { w.assign_rows(b, 0, wide.cview()); }, 8) == nothing);
  CHECK(wasteful([&] { w.read_rows(b, 0, read.view()); }, 8) == nothing);
  CHECK(wasteful([&] { embed(b, ids.cview(), wide_table.view(), looked_up.view()); }, 8) == nothing);
  CHECK(wasteful([&] { matmul(b, wide.cview(), w.view(), read.view()); }, 8) == nothing);
  CHECK(wasteful([&] { matmul_backward_input(b, wide.cview(), w.view(), read.view()); }, 8) == nothing);
  CHECK(wasteful([&] { matmul_backward_weight(rounding, x.cview(), x.cview(), dw.view()); }, 8) == nothing);
  CHECK(wasteful([&] {
          log_prob(b, h.cview(), head.view(), ids.cview(), 1, scratch, log_p.view(), lse.view(), entropy.view());
        }) == nothing);
  CHECK(wasteful(
            [&] {
              log_prob_backward(b, h.cview(), head.view(), ids.cview(), 1, scratch, lse.cview(), log_p.cview(),
                                entropy.cview(), log_p.cview(), dh.view(), {});
            },
            8) == nothing);
}
#endif
