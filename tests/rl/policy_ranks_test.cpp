// A policy whose ranks have slices of it: what its update exchanges, and that the model's bits do not depend on them.
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/blocks.hpp>
#include <atmanrl/rl/policy.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"

#include <cmath>
#include <mutex>
#include <vector>

using namespace atmanrl_test;

namespace policy_ranks_test {
namespace {

/// Large enough for slices of four ranks.
model_config wide_config() {
  model_config c = rich_config();
  c.vocab = 600;
  c.hidden = 256;
  c.ffn = 160;
  return c;
}

/// The model's weights after two updates, as they are stored.
/// \param exchanged  bytes of the latest one that others have sent to this rank
template <class W>
std::vector<float> updated(comm::any_on<cpu_backend> ranks, comm::byte_count& exchanged) {
  cpu_backend backend({.threads = 1});
  auto model = random_model<cpu_backend, W>(backend, wide_config(), 3, 0.1);
  trainable_policy<llama<cpu_backend>> policy(model, optim::adamw{}, ranks);
  auto const n = std::size_t(model.trainable_layout().size());
  for (int step = 0; step < 2; ++step) {
    std::vector<float> gradient(n);
    for (std::size_t i = 0; i < n; ++i) gradient[i] = float(std::sin(double(i * 7 + std::size_t(step))));
    policy.gradient().assign(gradient);
    auto const before = ranks.volume().exchange;
    policy.update(3e-3, 1);
    auto const after = ranks.volume().exchange;
    exchanged = {after.sent - before.sent, after.received - before.received};
  }
  tensor<cpu_backend, float, 1> weights(backend, {index_t(n)});
  model.read_trainable(weights.view());
  return weights.to_host();
}

/// \param size  bytes that a parameter's elements are exchanged in
template <class W, class Size>
void check(Size&& size) {
  comm::byte_count nothing;
  auto const expected = updated<W>({}, nothing);
  CHECK(nothing == comm::byte_count{});
  parameter_layout const layout(wide_config(), llama<cpu_backend>::kind_of(wide_config()));
  std::vector<std::size_t> bytes;
  for (parameter_info const& p : layout.all()) bytes.insert(bytes.end(), std::size_t(p.size()), size(p));
  for (int const ranks : {2, 3, 4}) {
    INFO(ranks << " ranks");
    std::mutex lock;
    comm::threads::run(ranks, [&](comm::threads& c) {
      comm::byte_count counted;
      auto const found = updated<W>(c, counted);
      comm::range const slice = comm::slice_of(bytes.size(), ranks, c.rank());
      comm::byte_count wanted;
      for (std::size_t i = 0; i < bytes.size(); ++i)
        if (i >= slice.first && i < slice.end())
          wanted.sent += bytes[i] * std::size_t(ranks - 1);
        else
          wanted.received += bytes[i];
      std::lock_guard const held(lock);
      CHECK((found == expected));
      CHECK(slice.count > 0);
      CHECK(counted == wanted);
    });
  }
}

}  // namespace

TEST_CASE("policy over ranks: weights that a model stores as bf16 are exchanged as that, with the bits of one rank") {
  check<float>([](parameter_info const&) { return sizeof(float); });
  check<bf16>([](parameter_info const& p) { return p.is_vector() ? sizeof(float) : sizeof(bf16); });
}

}  // namespace policy_ranks_test
