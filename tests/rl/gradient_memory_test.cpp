// What of a gradient a rank keeps changes no bit: whole, with sums in slices, or handed over in layers; leaves of any
// number of passes, also of none; the bytes of the formula, the memory that is announced, and ranks that fail midway.
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "gradient_memory_checks.hpp"

#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace gradient_memory_test {

using namespace gradient_memory_checks;

namespace {

template <class W>
outcome updated_here(setting const& s, comm::any_on<cpu_backend> ranks) {
  cpu_backend backend({.threads = 1});
  return updated<W>(backend, s, ranks);
}

template <class W>
void check_all(setting s) {
  outcome const expected = updated_here<W>(s, {});
  REQUIRE(expected.norms[0] > 0);
  for (std::size_t i = 0; i < expected.gathered.size(); ++i) REQUIRE(expected.gathered[i] == int(i));
  for (int const ranks : {1, 2, 3, 4})
    for (gradient_memory_options const& way : ways) {
      if (way.kept == gradient_memory::layers && !s.optimizer.is_elementwise()) continue;
      INFO(ranks << " ranks, " << int(way.kept) << " kept, sums on the host: " << way.sums_on_host);
      s.memory = way;
      std::mutex lock;
      CHECK_NOTHROW(comm::threads::run(ranks, [&](comm::threads& c) {
        outcome const found = updated_here<W>(s, c);
        std::lock_guard const held(lock);
        CHECK((found == expected));
        if (ranks == 1 || way.kept == gradient_memory::whole || !s.optimizer.is_elementwise()) return;
        // Every leaf is sent once, whole, and the new weights as without the option.
        std::size_t const all = expected.weights.size(), mine = dealt_leaves(s.leaves, ranks, c.rank());
        comm::byte_count const formula{4 * mine * (all - found.slice.count), 4 * (s.leaves - mine) * found.slice.count};
        CHECK(found.of_sum.exchange == formula);
        CHECK(found.of_update.exchange.received <= 4 * (all - found.slice.count));
      }));
    }
}

}  // namespace

TEST_CASE("gradient memory: whole, in slices or in layers, the same bits for any number of ranks and leaves") {
  for (std::size_t const leaves : {1, 4, 5}) check_all<float>({.memory = {}, .leaves = leaves});
  check_all<bf16>({.memory = {}, .leaves = 5, .tied = false});
}

TEST_CASE("gradient memory: adapters, and an optimizer whose state cannot be sliced") {
  check_all<float>({.memory = {}, .adapters = true});
  check_all<float>({.memory = {}, .leaves = 4, .optimizer = optim::muon{}});
  CHECK_THROWS_WITH(comm::threads::run(2,
                                       [](comm::threads& c) {
                                         updated_here<float>(
                                             {.memory = {gradient_memory::layers}, .optimizer = optim::muon{}}, c);
                                       }),
                    ATMANRL_CONTAINS("the optimizer is not element-wise"));
}

TEST_CASE("gradient memory: a rank holds what elements_of_dealt_sums announces") {
  static constexpr std::size_t leaves = 7;
  for (int const ranks : {2, 4})
    for (gradient_memory_options const& way : ways) {
      if (way.kept == gradient_memory::whole) continue;
      INFO(ranks << " ranks, " << int(way.kept) << " kept, sums on the host: " << way.sums_on_host);
      std::mutex lock;
      CHECK_NOTHROW(comm::threads::run(ranks, [&](comm::threads& c) {
        cpu_backend backend({.threads = 1});
        model_config deep = wide_config();
        deep.layers = 8;
        auto model = random_model<cpu_backend, float>(backend, deep, 3, 0.1);
        {  // what a pass takes is there already
          trainable_weights<llama<cpu_backend>> other(model);
          other.sum_gradient(1, [&](std::size_t) { add_leaf(other, 1); });
        }
        std::size_t const before = backend.allocated_bytes();
        trainable_weights<llama<cpu_backend>> policy(model, c, true, way);
        for (int step = 0; step < 2; ++step) policy.sum_gradient(leaves, [&](std::size_t) { add_leaf(policy, 1); });
        std::size_t const all = std::size_t(model.layout().size()),
                          leaf = way.kept == gradient_memory::layers ? most_open_elements(model.layout()) : all,
                          held = (backend.allocated_bytes() - before) / 4 - policy.slice().count;
        auto const announced = elements_of_dealt_sums(leaves, all, ranks, leaf, way.sums_on_host);
        std::lock_guard const one(lock);
        CHECK(held <= announced.all());
        // The first rank has the largest slice; of what waits on the host not everything is added to in one round.
        std::size_t const fewer = way.sums_on_host ? announced.on_host : 0;
        if (c.rank() == 0) CHECK(held >= announced.all() - fewer);
        if (way.kept == gradient_memory::layers) CHECK(announced.leaf < all / 2);
      }));
    }
}

TEST_CASE("gradient memory: a rank that fails in a round ends all others with its sentence") {
  for (gradient_memory_options const& way : ways)
    for (int const when : {0, 1}) {  // before its first stretch is handed over, and after the last one
      INFO(int(way.kept) << " kept, " << when);
      std::mutex lock;
      std::vector<std::string> heard;
      std::size_t finished = 0;
      auto const run = [&] {
        comm::threads::run(3, [&](comm::threads& c) {
          cpu_backend backend({.threads = 1});
          auto model = random_model<cpu_backend, float>(backend, wide_config(), 3, 0.1);
          trainable_weights<llama<cpu_backend>> policy(model, c, true, way);
          try {
            policy.sum_gradient(7, [&](std::size_t leaf) {
              if (leaf == 4 && when == 0) fail<numeric_error>("leaf 4 is not finite");
              add_leaf(policy, leaf);
              if (leaf == 4 && when == 1) fail<numeric_error>("leaf 4 is not finite");
              std::lock_guard const held(lock);
              finished = std::max(finished, leaf);
            });
          } catch (numeric_error const& e) {
            std::lock_guard const held(lock);
            heard.push_back(e.what());
          }
          c.barrier();                                                                // nobody waits for anybody
          policy.sum_gradient(2, [&](std::size_t leaf) { add_leaf(policy, leaf); });  // and the next sum is sound
        });
      };
      CHECK_NOTHROW(run());
      CHECK((heard == std::vector<std::string>(3, "leaf 4 is not finite")));
      if (way.kept == gradient_memory::layers && when == 0) CHECK(finished < 6);
    }
}

TEST_CASE("gradient memory: what cannot be handed over in layers is refused with a sentence") {
  comm::threads::run(2, [](comm::threads& c) {
    cpu_backend backend({.threads = 1});
    auto model = random_model<cpu_backend, float>(backend, small_config(), 3, 0.1);
    trainable_weights<llama<cpu_backend>> policy(model, c, true, {gradient_memory::layers});
    std::vector<std::string> said;
    auto const sentence = [&](auto&& f) {
      try {
        f();
      } catch (usage_error const& e) {
        said.push_back(e.what());
      }
    };
    sentence([&] { policy.pass_gradients(); });
    sentence([&] { policy.whole(policy.master()); });
    expects(said.size() == 2 && said[0].find("in sum_gradient alone") != std::string::npos &&
                said[1].find("no rank has room for a whole array") != std::string::npos,
            "{} sentences", said.size());
  });
}

}  // namespace gradient_memory_test
