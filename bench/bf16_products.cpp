// Products with bf16 weights in each way that the machine has (`bf16_products`), in turn within a round: GFLOP/s, and
// how many times as fast as with float activations. What is fastest here is what cpu/bf16_products.hpp should choose.
// Where the machine has AMX or BFMMLA, its bits are compared with those of the twin first.
//   bf16_products [rounds]
#include <atmanrl/cpu/cpu_backend.hpp>

#include <cstring>
#include <memory>
#include <vector>

#include "machine.hpp"

using namespace atmanrl;

namespace {

struct way {
  bf16_products products;
  std::unique_ptr<cpu_backend> backend;
};

std::vector<way> ways() {
  std::vector<way> found;
  for (bf16_products const p : {bf16_products::floats, bf16_products::pairs, bf16_products::amx, bf16_products::bfmmla})
    try {
      found.push_back({p, std::make_unique<cpu_backend>(cpu_options{.products = p})});
    } catch (usage_error const& e) {
      fmt::print("not here: {}\n", e.what());
    }
  return found;
}

std::vector<float> numbers(index_t count, index_t period) {
  std::vector<float> v(static_cast<std::size_t>(count));
  for (index_t i = 0; i < count; ++i) v[std::size_t(i)] = float(i % period - period / 2) * 1e-2f;
  return v;
}

struct shape {
  index_t outputs, inputs;
};

// Weights that do not fit into the caches take turns.
struct problem {
  shape s;
  index_t rows;
  cpu_backend& memory;
  std::vector<weight<cpu_backend, bf16>> weights;
  std::vector<float> x = numbers(rows * s.inputs, 89), y = numbers(rows * s.outputs, 83);

  problem(cpu_backend& m, shape of, index_t n) : s(of), rows(n), memory(m) {
    auto const values = numbers(s.outputs * s.inputs, 97);
    for (index_t bytes = 0; bytes < (index_t{96} << 20); bytes += s.outputs * s.inputs * index_t(sizeof(bf16))) {
      weights.emplace_back(memory, s.outputs, s.inputs);
      weights.back().assign_rows(memory, 0, view<float const, 2>(values.data(), {s.outputs, s.inputs}));
    }
  }

  void run(cpu_backend& b, bool forward, std::size_t turn) {
    auto const w = weights[turn % weights.size()].view();
    view<float, 2> const in(x.data(), {rows, s.inputs}), out(y.data(), {rows, s.outputs});
    if (forward)
      matmul(b, view<float const, 2>(in), w, out);
    else
      matmul_backward_input(b, view<float const, 2>(out), w, in);
  }

  /// Operations per second.
  double speed(cpu_backend& b, bool forward) {
    double const operations = 2.0 * double(rows) * double(s.outputs) * double(s.inputs);
    int const calls = int(std::max(3.0, 2e9 / operations));
    run(b, forward, 0);
    double const start = atmanrl_bench::now();
    for (int i = 0; i < calls; ++i) run(b, forward, std::size_t(i) + 1);
    return calls * operations / (atmanrl_bench::now() - start);
  }
};

bool twin_agrees(cpu_backend& unit) {
  cpu_backend twin(
      {.products = unit.products() == bf16_products::amx ? bf16_products::amx_twin : bf16_products::bfmmla_twin});
  problem p(unit, {200, 300}, 50);
  p.run(unit, true, 0);
  auto const y = p.y;
  p.run(twin, true, 0);
  return std::memcmp(y.data(), p.y.data(), y.size() * sizeof(float)) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  int const rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  auto const all = ways();
  auto const& here = cpu::this_processor();
  char const* const amx_access[] = {"none", "refused by the system", "granted"};
  fmt::print("AMX: {}; chosen: {}; {} threads, vectors of {} floats\n", amx_access[int(here.amx)],
             cpu::text(cpu_backend().products()), all[0].backend->threads(), simd::lanes);
  if (bf16_products const last = all.back().products; last == bf16_products::amx || last == bf16_products::bfmmla)
    fmt::print("bits of {} and of its twin: {}\n", cpu::text(last),
               twin_agrees(*all.back().backend) ? "the same" : "DIFFERENT");
  fmt::print("| product | rows | way | GFLOP/s | times floats | least – greatest |\n|---|---|---|---|---|---|\n");
  for (bool const forward : {true, false}) {
    for (shape const s : {shape{1536, 576}, shape{576, 1536}, shape{3072, 3072}}) {
      for (index_t const rows : {1, 16, 64, 512}) {
        problem p(*all[0].backend, s, rows);
        std::vector<std::vector<double>> speeds(all.size()), ratios(all.size());
        for (int r = 0; r < rounds; ++r) {
          std::vector<double> now(all.size());
          for (std::size_t i = 0; i < all.size(); ++i) {  // the next round begins with another way
            std::size_t const turn = (i + std::size_t(r)) % all.size();
            now[turn] = p.speed(*all[turn].backend, forward);
          }
          for (std::size_t i = 0; i < all.size(); ++i) {
            speeds[i].push_back(now[i]);
            ratios[i].push_back(now[i] / now[0]);
          }
        }
        for (std::size_t i = 0; i < all.size(); ++i) {
          std::sort(speeds[i].begin(), speeds[i].end());
          std::sort(ratios[i].begin(), ratios[i].end());
          std::size_t const middle = speeds[i].size() / 2;
          fmt::print("| {} {} x {} | {} | {} | {:.0f} | {:.2f} | {:.2f} – {:.2f} |\n",
                     forward ? "y = x Wᵀ" : "dx = dy W", s.outputs, s.inputs, rows, cpu::text(all[i].products),
                     speeds[i][middle] * 1e-9, ratios[i][middle], ratios[i].front(), ratios[i].back());
        }
      }
    }
  }
}
