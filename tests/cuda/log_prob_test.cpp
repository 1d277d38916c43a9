#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

struct head_shape {
  index_t rows, dim, vocabulary;
};

template <class W, class B, class T>
results log_prob_of(B& backend, T, head_shape s, bool entropy_too) {
  inputs<B, T> const in(backend);
  weight<B, W> head(backend, s.vocabulary, s.dim);
  tensor<B, compute_t<W>, 2> contents = inputs<B, compute_t<W>>(backend).random({s.vocabulary, s.dim}, 1);
  head.assign_rows(backend, 0, contents.cview());
  // Sixteenths: exact in bf16, so that rounding the activations changes nothing in the forward pass.
  std::vector<T> h_values;
  for (double const x : random_values(s.rows * s.dim, 2)) h_values.push_back(T(std::round(x * 16) / 16));
  auto h = in.empty({s.rows, s.dim});
  h.assign(h_values);
  std::vector<int> targets;
  for (index_t r = 0; r < s.rows; ++r) targets.push_back(int((r * 613 + s.vocabulary - 1) % s.vocabulary));
  auto const ids = in.ids(targets);
  auto log_p = in.empty({s.rows}), lse = in.empty({s.rows}), entropy = in.empty({s.rows});
  auto const dlog_p = in.random({s.rows}, 4), dentropy = in.random({s.rows}, 5);
  auto dh = in.empty({s.rows, s.dim}), dhead = in.random({s.vocabulary, s.dim}, 6);
  log_prob_scratch<B, T> scratch;
  auto const only = [&](auto const& t) { return entropy_too ? t.cview() : view_on<B, T const, 1>{}; };
  entropy.fill_zero();
  log_prob(backend, h.cview(), head.view(), ids.cview(), 0.7, scratch, log_p.view(), lse.view(),
           entropy_too ? entropy.view() : view_on<B, T, 1>{});
  log_prob_backward(backend, h.cview(), head.view(), ids.cview(), 0.7, scratch, lse.cview(), dlog_p.cview(),
                    only(entropy), only(dentropy), dh.view(), dhead.view());
  return {host(log_p), host(lse), host(entropy), host(dh), host(dhead)};
}

}  // namespace

TEST_CASE("cuda log_prob: forward and backward agree with the plain loop for ragged vocabularies") {
  cuda_backend device;
  for (head_shape const s : {head_shape{1, 3, 1},
                             {3, 5, 2},
                             {2, 4, 129},
                             {3, 8, device_logit_blocks.ids},
                             {2, 8, device_logit_blocks.ids + 1},
                             {3, 5, 2 * device_logit_blocks.ids + 77}})
    for (bool const entropy_too : {true, false}) {
      constexpr std::ptrdiff_t dh = 3;
      check_on_device<float>(
          device,
          [&](auto& b, auto t) {
            results all = log_prob_of<float>(b, t, s, entropy_too);
            if (s.vocabulary >= device_logit_blocks.ids) all.erase(all.begin() + dh);
            return all;
          },
          1e-5);
      // dh is a float sum over the ids of a block, which the products of the emulation add one after the other.
      if (s.vocabulary >= device_logit_blocks.ids)
        check_on_device<float>(
            device, [&](auto& b, auto t) { return results{log_prob_of<float>(b, t, s, entropy_too)[std::size_t(dh)]}; },
            1e-4);
    }
  check_on_device<double>(
      device,
      [&](auto& b, auto t) {
        return log_prob_of<double>(b, t, {2, 5, 1100}, true);
      },
      1e-12);
  check_on_device<float>(
      device,
      [&](auto& b, auto t) {
        return log_prob_of<bf16>(b, t, {3, 8, 300}, true);
      },
      0x1p-7);
}

TEST_CASE("cuda log_prob: more rows than share a chunk of logits, and more than a block of states") {
  cuda_backend device;
  check_on_device<float>(
      device,
      [&](auto& b, auto t) {
        return log_prob_of<float>(b, t, {device_logit_blocks.rows + 3, 2, 5}, true);
      },
      1e-5);
}

TEST_CASE("cuda log_prob: scores far apart neither overflow nor vanish") {
  cuda_backend device;
  check_on_device<float>(
      device,
      []<class B, class T>(B& b, T) {
        inputs<B, T> const in(b);
        auto const logits = in.random({2, 1500}, 1, 1000);
        auto const targets = in.ids({0, 1499});
        auto log_p = in.empty({2}), lse = in.empty({2}), entropy = in.empty({2});
        tensor<B, kernels::softmax_state<T>, 1> states(b, {2});
        using head = kernels::log_prob<B>;
        head::start(b, states.view());
        head::accumulate(b, logits.cview(), T(1), 0, targets.cview(), states.view());
        head::finish(b, states.cview(), log_p.view(), lse.view(), entropy.view());
        return results{host(log_p), host(lse)};
      },
      1e-5);
}
