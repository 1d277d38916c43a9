#pragma once
// What the programs about Llama-3.2-3B share: its shape with random weights, and time and peak memory of their phases.
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/grpo.hpp>

#include <chrono>
#include <fstream>

namespace atmanrl_bench {

using namespace atmanrl;
using model_type = llama<cpu_backend>;

// config.json of meta-llama/Llama-3.2-3B.
inline model_config llama_3_2_3b(index_t layers) {
  model_config c;
  c.layers = layers, c.hidden = 3072, c.heads = 24, c.kv_heads = 8, c.head_dim = 128, c.ffn = 8192, c.vocab = 128256;
  c.rope_theta = 5e5, c.rms_eps = 1e-5, c.max_positions = 131072, c.tied_head = true;
  c.rope_scaling = {
      .llama3 = true, .factor = 32, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_positions = 8192};
  return c;
}

// Piece by piece into the packed panels, the only copy: as floats the weights alone would take 12 GiB.
inline void fill(model_type& model) {
  std::vector<float> piece;
  std::uint32_t number = 0;
  for (parameter_info const& p : model.layout().all()) {
    bool const gain = p.is_vector();
    float const bound = p.role == parameter_role::embedding ? 0.035f : 1 / std::sqrt(float(p.columns));
    index_t const most = std::max<index_t>(1, (index_t{1} << 22) / p.columns / 32 * 32);
    for (index_t first = 0; first < p.rows; first += most) {
      index_t const rows = std::min(most, p.rows - first), size = rows * p.columns;
      piece.resize(std::size_t(size));
      model.backend().split((size + 3) / 4, 1024, [&](index_t begin, index_t end) {
        for (index_t block = begin; block < end; ++block) {
          auto const bits = random_bits(
              {.seed = 1, .step = number, .prompt = std::uint32_t(first), .position = std::uint32_t(block)});
          for (index_t i = 4 * block; i < std::min(size, 4 * block + 4); ++i)
            piece[std::size_t(i)] = gain ? 1.0f : bound * (float(bits[std::size_t(i % 4)]) * 0x1p-31f - 1);
        }
      });
      model.assign_rows(p, first, view<float const, 2>(piece.data(), {rows, p.columns}));
    }
    ++number;
  }
}

inline std::vector<int> random_tokens(int count, std::uint32_t stream, index_t vocab) {
  random_stream draw(2, stream);
  std::vector<int> ids;
  for (int i = 0; i < count; ++i) ids.push_back(draw.between(0, int(vocab) - 1));
  return ids;
}

/// Prints what ran since the last call and starts Linux's measurement of the peak anew.
class phase_report {
 public:
  phase_report() { start(); }
  void done(std::string const& what) {
    std::size_t const peak = peak_process_bytes();
    highest_ = std::max(highest_, peak);
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    fmt::print("{:<44} {:7.1f} s   peak {}\n", what, seconds, format_bytes(peak));
    std::fflush(stdout);
    start();
  }
  std::size_t highest() const { return highest_; }
  /// Since the report was made.
  double all_seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - first_).count();
  }

 private:
  void start() {
    std::ofstream("/proc/self/clear_refs") << 5;
    begin_ = std::chrono::steady_clock::now();
  }
  std::chrono::steady_clock::time_point const first_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point begin_;
  std::size_t highest_ = 0;
};

}  // namespace atmanrl_bench
