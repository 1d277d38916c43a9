#pragma once

/// \file
/// Every operation of ops/ on small random inputs, for any backend and scalar: what `check_backend` compares.

#include <atmanrl/ops/adamw.hpp>
#include <atmanrl/ops/attention.hpp>
#include <atmanrl/ops/elementwise.hpp>
#include <atmanrl/ops/embedding.hpp>
#include <atmanrl/ops/gated.hpp>
#include <atmanrl/ops/lion.hpp>
#include <atmanrl/ops/log_prob.hpp>
#include <atmanrl/ops/matmul.hpp>
#include <atmanrl/ops/mean_attention.hpp>
#include <atmanrl/ops/rms_norm.hpp>
#include <atmanrl/ops/rope.hpp>
#include <atmanrl/ops/sample.hpp>
#include <atmanrl/ops/sgd.hpp>
#include <atmanrl/ops/swiglu.hpp>
#include <atmanrl/testing/attention_tree.hpp>
#include <atmanrl/testing/on_backends.hpp>

#include <cstdint>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

namespace detail {

template <class B, class T>
weight<B, T> random_weight(B& backend, index_t outputs, index_t columns, unsigned seed) {
  weight<B, T> w(backend, outputs, columns);
  auto const rows = inputs<B, T>(backend).random({outputs, columns}, seed);
  w.assign_rows(backend, 0, rows.cview());
  return w;
}

template <class B, class T>
operation_outputs matmul_of(B& backend, T, index_t rows, index_t outputs, index_t columns) {
  inputs<B, T> const in(backend);
  auto const w = random_weight<B, T>(backend, outputs, columns, 1);
  auto const x = in.random({rows, columns}, 2), dy = in.random({rows, outputs}, 3);
  auto y = in.random({rows, outputs}, 4), dx = in.random({rows, columns}, 5), dw = in.random({outputs, columns}, 6),
       back = in.empty({outputs, columns}), over = in.empty({rows, outputs});
  w.read_rows(backend, 0, back.view());
  matmul(backend, x.cview(), w.view(), over.view());
  matmul(backend, x.cview(), w.view(), y.view(), store::add);
  matmul_backward_input(backend, dy.cview(), w.view(), dx.view(), store::add);
  matmul_backward_weight(backend, dy.cview(), x.cview(), dw.view());
  return {{"the weight", host(back)},
          {"y", host(over)},
          {"y that is added to", host(y)},
          {"dx", host(dx)},
          {"dw", host(dw)}};
}

template <class B, class T>
operation_outputs embedding_of(B& backend, T, index_t dim) {
  inputs<B, T> const in(backend);
  auto const table = random_weight<B, T>(backend, 70, dim, 1);
  auto const ids = in.ids({3, 69, 0, 3, 33});
  auto const x = in.random({9, dim}, 2), dy = in.random({5, dim}, 3);
  auto y = in.empty({5, dim}), picked = in.empty({5, dim}), dx = in.random({9, dim}, 4);
  auto const rows = in.ids({8, 2, 2, 0, 8});
  embed(backend, ids.cview(), table.view(), y.view());
  gather_rows(backend, x.cview(), rows.cview(), picked.view());
  add_rows(backend, dy.cview(), rows.cview(), dx.view());
  return {{"y", host(y)}, {"gathered rows", host(picked)}, {"added rows", host(dx)}};
}

template <class B, class T>
operation_outputs elementwise_of(B& backend, T, index_t rows, index_t columns) {
  inputs<B, T> const in(backend);
  auto const x = in.random({rows, columns}, 1);
  auto const bias = in.random({columns}, 2);
  auto y = in.random({rows, columns}, 3), moved = in.random({rows, columns + 2}, 4);
  auto dbias = in.random({columns}, 5), sum = in.empty({columns}), scaled = in.random({columns}, 6),
       added = in.random({columns}, 7);
  add_bias(backend, bias.cview(), y.view());
  add_bias_backward(backend, x.cview(), dbias.view());
  add(backend, bias.cview(), added.view());
  sum_rows(backend, x.cview(), sum.view());
  scale(backend, scaled.view(), real_t<T>(-0.3f));
  copy_columns(backend, x.cview(), 0, moved.view(), 1, columns);
  return {{"bias added", host(y)},
          {"dbias", host(dbias)},
          {"sum", host(added)},
          {"sum of rows", host(sum)},
          {"scaled", host(scaled)},
          {"copied columns", host(moved)},
          {"sum of squares", {sum_of_squares(backend, bias.cview())}}};
}

template <class B, class T>
operation_outputs rms_norm_of(B& backend, T, index_t rows, index_t dim) {
  inputs<B, T> const in(backend);
  auto const x = in.random({rows, dim}, 1), dy = in.random({rows, dim}, 2);
  auto const gain = in.random({dim}, 3);
  auto y = in.empty({rows, dim}), again = in.empty({rows, dim}), dx = in.random({rows, dim}, 4);
  auto inv_rms = in.empty({rows}), dgain = in.random({dim}, 5);
  rms_norm(backend, x.cview(), gain.cview(), real_t<T>(1e-5), y.view(), inv_rms.view());
  rms_norm_recompute(backend, x.cview(), gain.cview(), inv_rms.cview(), again.view());
  rms_norm_backward(backend, x.cview(), gain.cview(), inv_rms.cview(), dy.cview(), dx.view(), dgain.view());
  return {{"y", host(y)},
          {"y that is computed again", host(again)},
          {"1 / rms", host(inv_rms)},
          {"dx", host(dx)},
          {"dgain", host(dgain)}};
}

template <class B, class T>
operation_outputs rope_of(B& backend, T, index_t half, rotation direction) {
  inputs<B, T> const in(backend);
  auto x = in.random({5, 5, 2 * half}, 1);
  auto const cosine = in.random({9, half}, 2), sine = in.random({9, half}, 3);
  rope(backend, x.view(), 3, in.ids({8, 0, 3, 3, 7}).cview(), cosine.cview(), sine.cview(), direction);
  return {{direction == rotation::forward ? "x that is turned" : "x that is turned back", host(x)}};
}

template <class B, class T>
operation_outputs swiglu_of(B& backend, T, index_t rows, index_t ffn) {
  inputs<B, T> const in(backend);
  auto const gate_up = in.random({rows, 2 * ffn}, 1, 3), dy = in.random({rows, ffn}, 2);
  auto y = in.empty({rows, ffn}), d = in.empty({rows, 2 * ffn});
  swiglu(backend, gate_up.cview(), y.view());
  swiglu_backward(backend, gate_up.cview(), dy.cview(), d.view());
  return {{"y", host(y)}, {"dgate_up", host(d)}};
}

template <class B, class T>
operation_outputs log_prob_of(B& backend, T, index_t rows, index_t vocabulary) {
  constexpr index_t dim = 12;
  constexpr double temperature = 0.7;
  inputs<B, T> const in(backend);
  auto const head = random_weight<B, T>(backend, vocabulary, dim, 1);
  std::vector<int> ids;
  for (index_t r = 0; r < rows; ++r) ids.push_back(int((r * 997 + 3) % vocabulary));
  auto const targets = in.ids(ids);
  auto const h = in.random({rows, dim}, 2, 0.3);
  auto const dlog_p = in.random({rows}, 3), dentropy = in.random({rows}, 4), bias = in.random({vocabulary}, 5);
  auto log_p = in.empty({rows}), lse = in.empty({rows}), entropy = in.empty({rows});
  auto dh = in.empty({rows, dim}), dhead = in.random({vocabulary, dim}, 6);
  log_prob_scratch<B, T> scratch;
  log_prob(backend, h.cview(), head.view(), targets.cview(), temperature, scratch, log_p.view(), lse.view(),
           entropy.view(), bias.cview());
  log_prob_backward(backend, h.cview(), head.view(), targets.cview(), temperature, scratch, lse.cview(), dlog_p.cview(),
                    entropy.cview(), dentropy.cview(), dh.view(), dhead.view(), bias.cview());
  return {{"log p", host(log_p)},
          {"lse", host(lse)},
          {"the entropy", host(entropy)},
          {"dh", host(dh)},
          {"dhead", host(dhead)}};
}

/// \tparam Mean   the mean over heads, and not the backward pass
/// \param values  of the policy's parameters
template <bool Mean, class T, class B, class Params>
operation_outputs attention_of(B& backend, tree_problem const& p, Params params, std::vector<double> const& values) {
  inputs<B, T> const in(backend);
  auto const& e = p.extents;
  auto const shaped = [&]<std::size_t Rank>(std::vector<double> const& x, std::array<index_t, Rank> shape) {
    tensor<B, T, int(Rank)> t(backend, shape);
    t.assign(converted<T>(converted<float>(x)));
    return t;
  };
  auto const cache = [&](std::vector<double> cached) {
    cached.resize(std::size_t((p.cached_rows + p.rows) * e.kv_heads * e.head_dim));
    return shaped(cached, p.cache_shape());
  };
  auto const sequences = in.array(p.sequences);
  auto const segments = in.array(p.segments);
  auto const trees = in.ids(p.trees), cache_rows = in.ids(p.cache_rows);
  attention_plan<typename B::memory_space> plan{
      .sequences = sequences.cview(), .segments = segments.cview(), .trees = trees.cview(), .longest = p.longest};
  auto const qkv = shaped(p.qkv, p.qkv_shape()), dout = shaped(p.dout, p.out_shape());
  auto keys = cache(p.cached_keys), stored = cache(p.cached_values);
  auto const of_edit = in.array(converted<T>(converted<float>(values)));
  index_t const count = index_t(values.size());
  tensor<B, T, 3> out(backend, p.out_shape()), dqkv(backend, p.qkv_shape());
  auto lse = in.empty({p.rows, e.heads}), dvalues = in.random({e.kv_heads, count}, 6);
  append_keys_and_values(backend, e, qkv.cview(), cache_rows.cview(), keys.view(), stored.view());
  attention_forward(backend, e, qkv.cview(), keys.cview(), stored.cview(), plan, params, of_edit.data(), out.view(),
                    lse.view());
  if constexpr (Mean) {
    auto of_heads = in.empty({p.rows, index_t(p.longest)});
    mean_attention(backend, e, qkv.cview(), keys.cview(), lse.cview(), plan, params, of_edit.data(), of_heads.view());
    return {{"the mean over heads", host(of_heads)}};
  } else {
    attention_backward(backend, e, qkv.cview(), keys.cview(), stored.cview(), plan, params, of_edit.data(), out.cview(),
                       lse.cview(), dout.cview(), dqkv.view(), dvalues.view());
    return {{"the cached keys", host(keys)},
            {"the cached values", host(stored)},
            {"the output", host(out)},
            {"lse", host(lse)},
            {"dqkv", host(dqkv)},
            {"the gradient of an edit's values", host(dvalues)}};
  }
}

/// A gate that any backend can call: g u / (1 + g²).
struct rational_gate {
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T gate, T up) const {
    return gate * up / (gate * gate + decltype(real_part(T{}))(1));
  }
};

template <class B, class T>
operation_outputs gated_of(B& backend, T, index_t rows, index_t ffn) {
  inputs<B, T> const in(backend);
  auto const gate_up = in.random({rows, 2 * ffn}, 1), dy = in.random({rows, ffn}, 2);
  auto y = in.empty({rows, ffn}), d = in.empty({rows, 2 * ffn});
  gated(backend, rational_gate{}, gate_up.cview(), y.view());
  gated_backward(backend, rational_gate{}, gate_up.cview(), dy.cview(), d.view());
  return {{"y", host(y)}, {"dgate_up", host(d)}};
}

/// Three steps of each kind.
template <class B, class T>
operation_outputs optimizer_steps_of(B& backend, T, index_t count) {
  inputs<B, T> const in(backend);
  auto const g = in.random({count}, 1);
  auto with_adamw = in.random({count}, 2), with_sgd = in.random({count}, 3), with_momentum = in.random({count}, 4),
       with_lion = in.random({count}, 5), with_ranges = in.random({count}, 6);
  auto const zeros = [&] { return tensor<B, T, 1>::zeros(backend, {count}); };
  auto m = zeros(), v = zeros(), of_sgd = zeros(), of_lion = zeros(), m_ranges = zeros(), v_ranges = zeros();
  for (std::uint64_t step = 1; step <= 3; ++step) {
    adamw_options const adamw{.learning_rate = 0.01, .weight_decay = 0.1};
    std::vector<element_range> const ranges{{0, count / 3}, {count / 2, count - count / 2}};
    adamw_step(backend, with_adamw.view(), g.cview(), m.view(), v.view(), adamw, step);
    adamw_step(backend, with_ranges.view(), g.cview(), m_ranges.view(), v_ranges.view(), ranges, adamw, step);
    sgd_step(backend, with_sgd.view(), g.cview(), {.learning_rate = 0.1, .weight_decay = 0.1});
    sgd_step(backend, with_momentum.view(), g.cview(), of_sgd.view(),
             {.learning_rate = 0.1, .momentum = 0.9, .nesterov = true});
    lion_step(backend, with_lion.view(), g.cview(), of_lion.view(), {.learning_rate = 0.01, .weight_decay = 0.1});
  }
  return {{"weights after adamw", host(with_adamw)}, {"adamw's first moment", host(m)},
          {"adamw's second moment", host(v)},        {"weights after adamw over ranges", host(with_ranges)},
          {"weights after sgd", host(with_sgd)},     {"weights after sgd with momentum", host(with_momentum)},
          {"sgd's momentum", host(of_sgd)},          {"weights after lion", host(with_lion)},
          {"lion's momentum", host(of_lion)}};
}

template <class B, class T>
operation_outputs sampling_of(B& backend, T, sample_form const& form) {
  constexpr index_t vocabulary = 57, draws = 40;
  inputs<B, T> const in(backend);
  auto const logits = in.random({5, vocabulary}, 1, 2);
  std::vector<int> rows;
  std::vector<std::uint64_t> shares;
  random_stream draw(3, 9);
  for (index_t i = 0; i < draws; ++i) {
    rows.push_back(int(i * 3 % 5));
    shares.push_back(share_of_2_64(draw.uniform()));
  }
  auto const of_rows = in.ids(rows);
  auto const numbers = in.array(shares);
  tensor<B, int, 1> ids(backend, {draws});
  auto log_p = in.empty({draws}), entropy = in.empty({draws});
  sample_tokens(backend, logits.cview(), of_rows.cview(), numbers.cview(), 0.8, form, ids.view());
  score_tokens(backend, logits.cview(), of_rows.cview(), ids.cview(), 0.8, log_p.view(), entropy.view());
  return {{"the drawn tokens", host(ids)}, {"log p", host(log_p)}, {"the entropy", host(entropy)}};
}

}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI::testing
