// A backend of one's own: its products with weights are Eigen's, everything else is the CPU backend's. Eigen's sums
// depend on how many rows are multiplied at once, so this backend does not keep the bit rule (docs/architecture.md):
// good for trying a library of products, not for a run.
#include <atmanrl/llama.hpp>

#include <atmanrl/cpu/eigen.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/testing/backend.hpp>

// [backend]
/// Memory, threads and name.
struct eigen_backend : atmanrl::cpu_backend {
  static constexpr std::string_view name = "eigen";
};

namespace atmanrl::kernels {

/// A weight lies as it is written: (outputs, inputs), row by row.
template <>
struct matmul<eigen_backend> {
  static constexpr index_t output_granularity = 1;
  template <class W>
  static constexpr index_t storage_size(index_t outputs, index_t inputs) {
    return outputs * inputs;
  }
  using weights = weight_view<eigen_backend, float>;
  static auto matrix(weights w) { return as_eigen(view<float, 2>(w.data, {w.outputs, w.inputs})); }

  static void assign_rows(eigen_backend&, weights w, index_t first, view<float const, 2> rows) {
    matrix(w).middleRows(first, rows.extent(0)) = as_eigen(rows);
  }
  static void read_rows(eigen_backend&, weights w, index_t first, view<float, 2> rows) {
    as_eigen(rows) = matrix(w).middleRows(first, rows.extent(0));
  }
  static void forward(eigen_backend&, view<float const, 2> x, weights w, view<float, 2> y, bool add) {
    if (!add) as_eigen(y).setZero();
    as_eigen(y).noalias() += as_eigen(x) * matrix(w).transpose();
  }
  static void backward_input(eigen_backend&, view<float const, 2> dy, weights w, view<float, 2> dx, bool add) {
    if (!add) as_eigen(dx).setZero();
    as_eigen(dx).noalias() += as_eigen(dy) * matrix(w);
  }
  static void backward_weight(eigen_backend&, view<float const, 2> dy, view<float const, 2> x, view<float, 2> dw) {
    as_eigen(dw).noalias() += as_eigen(dy).transpose() * as_eigen(x);
  }
};

/// Rows of a weight are read where they lie; the other two are inherited.
template <>
struct embedding<eigen_backend> : embedding<cpu_backend> {
  static void forward(eigen_backend&, view<int const, 1> ids, weight_view<eigen_backend, float> table,
                      view<float, 2> y) {
    for (index_t r = 0; r < ids.size(); ++r) as_eigen(y).row(r) = matmul<eigen_backend>::matrix(table).row(ids(r));
  }
};

// clang-format off
template <> struct elementwise<eigen_backend> : elementwise<cpu_backend> {};
template <> struct rms_norm<eigen_backend> : rms_norm<cpu_backend> {};
template <> struct rope<eigen_backend> : rope<cpu_backend> {};
template <> struct attention<eigen_backend> : attention<cpu_backend> {};
template <> struct swiglu<eigen_backend> : swiglu<cpu_backend> {};
template <> struct log_prob<eigen_backend> : log_prob<cpu_backend> {};
// clang-format on

}  // namespace atmanrl::kernels
// [/backend]

namespace {

using namespace atmanrl;

struct result {
  std::vector<float> log_p, gradient;
};

/// Log-probabilities of all tokens but the first, and the gradient of their sum.
template <class B>
result score(std::vector<int> const& ids) {
  B backend;
  auto model = llama<B>::load(backend, "examples/models/tiny");
  auto const space = model.borrow_pass(index_t(ids.size()));
  ragged_batch batch;
  batch.add(space->cache.add_sequence(index_t(ids.size())), ids);
  model.forward(space->cache, batch, space->pass, {.mode = gradient_mode::parameters});
  std::vector<scored_token> scored;
  for (std::size_t t = 1; t < ids.size(); ++t) scored.push_back({int(t) - 1, ids[t]});
  model.log_probs(space->pass, scored);
  auto gradient = tensor<B, float, 1>::zeros(backend, {model.layout().size()});
  std::vector<float> const ones(scored.size(), 1.0f);
  model.backward(space->cache, space->pass, {.log_p = ones}, {.parameters = gradient.view()});
  return {space->pass.log_p(), gradient.to_host()};
}

double largest_difference(std::vector<float> const& a, std::vector<float> const& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(double(a[i]) - double(b[i])));
  return most;
}

int run() {
  // [prove]
  // Memory and the eight operations of a model, forward and backward, beside plain loops in double.
  eigen_backend checked;
  testing::check_backend(checked);
  // [/prove]
  auto const words = tokenizer::load("examples/models/tiny");
  task_item const item = arithmetic().evaluation_item(0);
  std::vector<int> ids = arithmetic().prompt(item, words);
  std::size_t const first = ids.size();
  for (int const id : arithmetic().completion(item, words)) ids.push_back(id);
  result const cpu = score<cpu_backend>(ids), eigen = score<eigen_backend>(ids);
  fmt::print("token          cpu_backend  eigen_backend\n");
  for (std::size_t t = first; t < std::min(first + 12, ids.size()); ++t)
    fmt::print("{:<12} {:13.6f} {:14.6f}\n", words.decode(std::span(&ids[t], 1)), cpu.log_p[t - 1], eigen.log_p[t - 1]);
  double const apart = largest_difference(cpu.log_p, eigen.log_p),
               slopes_apart = largest_difference(cpu.gradient, eigen.gradient);
  fmt::print("largest difference of {} log-probabilities {:.1e}, of {} derivatives {:.1e}\n", cpu.log_p.size(), apart,
             cpu.gradient.size(), slopes_apart);
  return cpu.log_p.size() == eigen.log_p.size() && apart < 1e-4 && slopes_apart < 1e-2 ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (error const& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
