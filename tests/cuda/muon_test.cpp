#include <atmanrl/optim/muon.hpp>

#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

TEMPLATE_TEST_CASE("cuda muon: three steps of tall, wide and square matrices and of vectors agree with plain loops", "",
                   float, double) {
  static std::vector<optim::parameter_shape> const shapes{{"model.embed_tokens.weight", 0, 5, 3},
                                                          {"q", 15, 36, 20},
                                                          {"norm", 735, 1, 3},
                                                          {"up", 738, 20, 37},
                                                          {"down", 1478, 9, 9}};
  cuda_backend device;
  check_on_device<TestType>(
      device,
      []<class B, class T>(B& b, T) {
        inputs<B, T> const in(b);
        auto p = in.random({1560}, 1);
        optim::muon::state<B, T> optimizer({.weight_decay = 0.1}, b, {1560, shapes});
        for (unsigned step = 0; step < 3; ++step)
          optimizer.step(p.view(), in.random({1560}, 2 + step, 0.1).cview(), 0.02);
        results all{host(p)};
        for (auto const& array : optimizer.arrays()) all.push_back(host(*array.values));
        return all;
      },
      std::is_same_v<TestType, float> ? 1e-4 : 1e-10);
}
