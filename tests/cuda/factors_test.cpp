// Where weights are bf16, their products take bf16, and kernels write what products take themselves: to the bits of a
// pass that rounds their scalars.
#include <atmanrl/ops/rope_append.hpp>

#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

struct product_of_gate {
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T gate, T up) const {
    return gate * up;
  }
};

using on = inputs<cuda_backend, float>;
using factors = std::vector<bf16>;

template <int Rank>
factors rounded(tensor<cuda_backend, float, Rank> const& t) {
  factors all;
  for (float const x : t.to_host()) all.push_back(bf16(x));
  return all;
}
/// As they are: of every kernel below each factor is written.
template <int Rank>
tensor<cuda_backend, bf16, Rank> unwritten(cuda_backend& b, std::array<index_t, Rank> shape) {
  tensor<cuda_backend, bf16, Rank> t(b, shape);
  t.assign(std::vector<bf16>(std::size_t(t.size()), bf16(7.0f)));
  return t;
}
tensor<cuda_backend, bf16, 2> factor_of(cuda_backend& b, tensor<cuda_backend, float, 2> const& t) {
  tensor<cuda_backend, bf16, 2> f(b, t.shape());
  f.assign(rounded(t));
  return f;
}

/// f(b) is the factors that a kernel writes and the same as they should be; whatever the order of threads.
template <class F>
void check_factors(cuda_backend& b, F const& f) {
  auto const [got, expected] = f(b);
  CHECK(got == expected);
  CHECK(same_in_every_thread_order([&] { return f(b).first; }));
}
using both = std::pair<factors, factors>;

}  // namespace

TEST_CASE("cuda factors: norms write them, forwards, again and after the residual stream's gradient, and copy x") {
  cuda_backend device;
  for (index_t const dim : ragged_lengths) {
    CAPTURE(dim);
    on const in(device);
    auto const x = in.random({3, dim}, 1), dy = in.random({3, dim}, 2);
    auto const gain = in.random({dim}, 3);
    auto y = in.empty({3, dim}), copy = in.empty({3, dim}), dx = in.random({3, dim}, 4),
         dx_too = in.random({3, dim}, 4);
    auto inv_rms = in.empty({3}), inv_rms_too = in.empty({3});
    rms_norm(device, x.cview(), gain.cview(), 0.1f, y.view(), inv_rms.view());
    check_factors(device, [&](auto& b) {
      auto f = unwritten<2>(b, {3, dim});
      rms_norm(b, x.cview(), gain.cview(), 0.1f, f.view(), inv_rms_too.view(), {});
      return both{f.to_host(), rounded(y)};
    });
    CHECK(inv_rms_too.to_host() == inv_rms.to_host());
    check_factors(device, [&](auto& b) {
      auto f = unwritten<2>(b, {3, dim});
      copy.fill_zero();
      rms_norm(b, x.cview(), gain.cview(), 0.1f, f.view(), inv_rms_too.view(), copy.view());
      return both{f.to_host(), rounded(y)};
    });
    CHECK(copy.to_host() == x.to_host());
    check_factors(device, [&](auto& b) {
      auto f = unwritten<2>(b, {3, dim});
      rms_norm_recompute(b, x.cview(), gain.cview(), inv_rms.cview(), f.view());
      return both{f.to_host(), rounded(y)};
    });
    rms_norm_backward(device, x.cview(), gain.cview(), inv_rms.cview(), dy.cview(), dx.view(), {});
    auto const dx_before = dx_too.to_host();
    check_factors(device, [&](auto& b) {
      auto f = unwritten<2>(b, {3, dim});
      dx_too.assign(dx_before);
      rms_norm_backward(b, x.cview(), gain.cview(), inv_rms.cview(), dy.cview(), dx_too.view(), {}, f.view());
      return both{f.to_host(), rounded(dx)};
    });
    CHECK(dx_too.to_host() == dx.to_host());
  }
}

TEST_CASE("cuda factors: activations write them in both directions") {
  cuda_backend device;
  for (index_t const ffn : ragged_lengths) {
    CAPTURE(ffn);
    on const in(device);
    auto const gate_up = in.random({3, 2 * ffn}, 1, 3), dy = in.random({3, ffn}, 2);
    auto const compare = [&](auto const& forward, auto const& backward) {
      auto y = in.empty({3, ffn}), d = in.empty({3, 2 * ffn});
      forward(device, gate_up, y);
      backward(device, gate_up, dy, d);
      check_factors(device, [&](auto& b) {
        auto f = unwritten<2>(b, {3, ffn});
        forward(b, gate_up, f);
        return both{f.to_host(), rounded(y)};
      });
      check_factors(device, [&](auto& b) {
        auto f = unwritten<2>(b, {3, 2 * ffn});
        backward(b, gate_up, dy, f);
        return both{f.to_host(), rounded(d)};
      });
    };
    compare([](auto& b, auto& x, auto& y) { swiglu(b, x.cview(), y.view()); },
            [](auto& b, auto& x, auto& dy, auto& d) { swiglu_backward(b, x.cview(), dy.cview(), d.view()); });
    compare([](auto& b, auto& x, auto& y) { gated(b, product_of_gate{}, x.cview(), y.view()); },
            [](auto& b, auto& x, auto& dy, auto& d) {
              gated_backward(b, product_of_gate{}, x.cview(), dy.cview(), d.view());
            });
  }
}

TEST_CASE("cuda factors: gradients that are rotated back, of heads that are and heads that are not") {
  cuda_backend device;
  for (index_t const half : {1, 2, 3, 4, 31, 32, 64})
    for (index_t const rotated : {0, 3, 5}) {
      CAPTURE(half, rotated);
      on const in(device);
      auto const x = in.random({5, 5, 2 * half}, 1);
      auto turned = in.random({5, 5, 2 * half}, 1);
      auto const cosine = in.random({9, half}, 2), sine = in.random({9, half}, 3);
      auto const positions = in.ids({8, 0, 3, 3, 7});
      rope(device, turned.view(), rotated, positions.cview(), cosine.cview(), sine.cview(), rotation::inverse);
      check_factors(device, [&](auto& b) {
        auto f = unwritten<3>(b, {5, 5, 2 * half});
        rope_into(b, x.cview(), rotated, positions.cview(), cosine.cview(), sine.cview(), rotation::inverse, f.view());
        return both{f.to_host(), rounded(turned)};
      });
    }
}

TEMPLATE_TEST_CASE("cuda rope_append: one pass leaves in the cache what two leave, and rotated queries", "", float,
                   bf16) {
  cuda_backend device;
  using K = TestType;
  for (index_t const half : {2, 3, 4, 6, 32})
    for (index_t const kv_heads : {1, 3}) {
      CAPTURE(half, kv_heads);
      attention_extents const e{.heads = 2 * kv_heads, .kv_heads = kv_heads, .head_dim = 2 * half};
      on const in(device);
      auto const cosine = in.random({9, half}, 2), sine = in.random({9, half}, 3);
      auto const positions = in.ids({8, 0, 3, 3, 7}), cache_rows = in.ids({4, 9, 0, 1, 6});
      auto const run = [&](bool one_pass) {
        auto qkv = in.random({5, 4 * kv_heads, 2 * half}, 1);
        auto const before = qkv.to_host();
        tensor<cuda_backend, K, 3> keys(device, {10, kv_heads, 2 * half}), values(device, keys.shape());
        for (auto* const t : {&keys, &values}) t->assign(std::vector<K>(std::size_t(t->size()), K(7.0f)));
        if (one_pass) {
          rope_and_append(device, e, qkv.view(), positions.cview(), cosine.cview(), sine.cview(), cache_rows.cview(),
                          keys.view(), values.view());
        } else {  // append reads 16 bytes at a time, so rows that are not so long are copied here
          rope(device, qkv.view(), 3 * kv_heads, positions.cview(), cosine.cview(), sine.cview());
          auto const x = qkv.to_host();
          auto k = keys.to_host(), v = values.to_host();
          std::size_t const width = std::size_t(kv_heads * 2 * half);
          for (std::size_t r = 0; r < 5; ++r)
            for (std::size_t i = 0; i < width; ++i) {
              std::size_t const to = std::size_t(std::array{4, 9, 0, 1, 6}[r]) * width + i;
              k[to] = K(x[(4 * r + 2) * width + i]), v[to] = K(x[(4 * r + 3) * width + i]);
            }
          keys.assign(k), values.assign(v);
        }
        auto all = host(keys), more = host(values);
        all.insert(all.end(), more.begin(), more.end());
        auto const after = qkv.to_host();
        std::size_t const row = std::size_t(8 * kv_heads * half);
        for (std::size_t i = 0; i < after.size(); ++i) {
          if (i % row < row / 2)
            all.push_back(after[i]);
          else if (one_pass)
            CHECK(after[i] == before[i]);
        }
        return all;
      };
      CHECK(run(true) == run(false));
      CHECK(same_in_every_thread_order([&] { return run(true); }));
    }
}

TEST_CASE("cuda factors: products of them have the bits of products that round scalars") {
  cuda_backend device({.bf16_weight_gradients = true});
  on const in(device);
  index_t const rows = 5, dim = 12, outputs = 20;
  auto const x = in.random({rows, dim}, 1), dy = in.random({rows, outputs}, 2);
  weight<cuda_backend, bf16> w(device, outputs, dim);
  w.assign_rows(device, 0, in.random({outputs, dim}, 3).cview());
  auto const x_factor = factor_of(device, x), dy_factor = factor_of(device, dy);
  auto const run = [&](auto const& left, auto const& dleft) {
    auto y = in.random({rows, outputs}, 4), dx = in.random({rows, dim}, 5), dw = in.random({outputs, dim}, 6);
    matmul(device, left.cview(), w.view(), y.view(), store::add);
    matmul_backward_input(device, dleft.cview(), w.view(), dx.view(), store::add);
    matmul_backward_weight<cuda_backend, float>(device, dleft.cview(), left.cview(), dw.view());
    return std::vector{y.to_host(), dx.to_host(), dw.to_host()};
  };
  CHECK(run(x, dy) == run(x_factor, dy_factor));
  // The sum of a bias' gradient is that of what the product was given.
  auto scalars = in.random({outputs}, 7), of_factors = in.random({outputs}, 7);
  auto widened = in.empty({rows, outputs});
  std::vector<float> exact;
  for (bf16 const v : dy_factor.to_host()) exact.push_back(v);
  widened.assign(exact);
  add_bias_backward(device, widened.cview(), scalars.view());
  add_bias_backward(device, dy_factor.cview(), of_factors.view());
  CHECK(of_factors.to_host() == scalars.to_host());
}

TEST_CASE("cuda factors: the head's gradient of logits is one, to the bits of one that is rounded") {
  cuda_backend device({.bf16_weight_gradients = true});
  for (index_t const vocabulary : {5, 64, 300}) {
    CAPTURE(vocabulary);
    on const in(device);
    index_t const rows = 4, dim = 8;
    weight<cuda_backend, bf16> head(device, vocabulary, dim);
    head.assign_rows(device, 0, in.random({vocabulary, dim}, 1).cview());
    auto const h = in.random({rows, dim}, 2);
    auto const h_factor = factor_of(device, h);
    auto const targets = in.ids({0, 3, 4, 2});
    auto const dlog_p = in.random({rows}, 3), dentropy = in.random({rows}, 4);
    auto const run = [&]<class F>(tensor<cuda_backend, F, 2> const& left) {
      log_prob_scratch<cuda_backend, float, F> scratch;
      auto log_p = in.empty({rows}), lse = in.empty({rows}), entropy = in.empty({rows});
      auto dh = in.empty({rows, dim}), dhead = in.random({vocabulary, dim}, 5);
      log_prob(device, left.cview(), head.view(), targets.cview(), 0.7, scratch, log_p.view(), lse.view(),
               entropy.view());
      log_prob_backward(device, left.cview(), head.view(), targets.cview(), 0.7, scratch, lse.cview(), dlog_p.cview(),
                        entropy.cview(), dentropy.cview(), dh.view(), dhead.view());
      std::vector<float> all;
      for (auto const* t : {&log_p, &lse, &entropy})
        for (float const v : t->to_host()) all.push_back(v);
      for (auto const* t : {&dh, &dhead})
        for (float const v : t->to_host()) all.push_back(v);
      return all;
    };
    CHECK(run(h) == run(h_factor));
    CHECK(same_in_every_thread_order([&] { return run(h_factor); }));
  }
}

TEST_CASE("cuda factors: products whose results are factors are scaled in float and rounded once") {
  cuda_backend device;
  on const in(device);
  index_t const rows = 5, dim = 12, outputs = 20;
  weight<cuda_backend, bf16> w(device, outputs, dim);
  w.assign_rows(device, 0, in.random({outputs, dim}, 3).cview());
  auto const x = factor_of(device, in.random({rows, dim}, 1)), dy = factor_of(device, in.random({rows, outputs}, 2));
  auto const scaled = [&](auto& t) {
    scale<cuda_backend, float>(device, t.view().template reshaped<1>({t.size()}), 0.3f);
    return rounded(t);
  };
  auto y = in.empty({rows, outputs}), dx = in.empty({rows, dim});
  matmul(device, x.cview(), w.view(), y.view());
  matmul_backward_input(device, dy.cview(), w.view(), dx.view());
  auto low = unwritten<2>(device, {rows, outputs}), dlow = unwritten<2>(device, {rows, dim});
  matmul_into_factor(device, x.cview(), w.view(), 0.3f, low.view());
  matmul_backward_input_into_factor(device, dy.cview(), w.view(), 0.3f, dlow.view());
  CHECK(low.to_host() == scaled(y));
  CHECK(dlow.to_host() == scaled(dx));
}
