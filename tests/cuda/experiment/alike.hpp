#pragma once
// Figures of a run on the device beside those on the CPU.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/io/json.hpp>

#include <charconv>
#include <cmath>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "catch.hpp"

namespace atmanrl_test {

/// `run()`, which is to launch kernels where B is the device's backend and none where it is the CPU's: what computes on
/// the CPU twice finds no difference.
template <class B, class Run>
auto computed_on(Run const& run) {
  auto const launches = [] { return cuda_emulation::calls().by_name["cudaLaunchKernelEx"]; };
  auto const before = launches();
  auto result = run();
  CHECK((launches() > before) == std::is_same_v<B, atmanrl::cuda_backend>);
  return result;
}

/// |a - b| / |b|, in Euclidean norms.
inline double relative_difference(std::span<float const> a, std::span<float const> b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, square = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    square += double(b[i]) * b[i];
  }
  return square > 0 ? std::sqrt(difference / square) : difference > 0;
}

/// Every number in both to a tolerance, all else exactly.
inline void check_alike(atmanrl::json const& a, atmanrl::json const& b, double tolerance) {
  atmanrl::json const flat_a = a.flatten(), flat_b = b.flatten();
  REQUIRE(flat_a.size() == flat_b.size());
  for (auto const& [name, value] : flat_a.items()) {
    INFO(name);
    // Two tokens of nearly the same saliency may change their ranks.
    double const allowed = name.find("spearman") == std::string::npos ? tolerance : 0.05;
    if (value.is_number_float())
      CHECK(value.get<double>() == Approx(flat_b.at(name).get<double>()).epsilon(allowed).margin(allowed));
    else
      CHECK(value == flat_b.at(name));
  }
}

/// The parts of `text` before, between and after any of the `marks`.
inline std::vector<std::string> parts_of(std::string_view text, std::string_view marks) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= text.size();) {
    std::size_t const end = std::min(text.find_first_of(marks, at), text.size());
    out.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

/// Two texts with tables in Markdown: numbers to a tolerance, all else exactly, but for columns of seconds. Rank
/// correlations (ρ) may move as in check_alike.
inline void check_alike_tables(std::string const& a, std::string const& b, double tolerance) {
  auto const number = [](std::string const& word) {
    double x = NAN;
    auto const [end, problem] = std::from_chars(word.data(), word.data() + word.size(), x);
    return problem == std::errc{} && end == word.data() + word.size() ? x : NAN;
  };
  auto const lines_a = parts_of(a, "\n"), lines_b = parts_of(b, "\n");
  REQUIRE(lines_a.size() == lines_b.size());
  std::vector<std::string> header;
  for (std::size_t l = 0; l < lines_b.size(); ++l) {
    INFO(lines_a[l] << '\n' << lines_b[l]);
    auto const cells_a = parts_of(lines_a[l], "|"), cells_b = parts_of(lines_b[l], "|");
    REQUIRE(cells_a.size() == cells_b.size());
    if (header.size() != cells_b.size()) header = cells_b;
    for (std::size_t c = 0; c < cells_b.size(); ++c) {
      if (header[c] == " seconds " && cells_b[c] != header[c]) continue;
      double const allowed = header[c].starts_with(" ρ ") ? 0.05 : tolerance;
      auto const words_a = parts_of(cells_a[c], " [],;"), words_b = parts_of(cells_b[c], " [],;");
      REQUIRE(words_a.size() == words_b.size());
      for (std::size_t w = 0; w < words_b.size(); ++w)
        if (double const x = number(words_b[w]); std::isfinite(x))
          CHECK(number(words_a[w]) == Approx(x).epsilon(allowed).margin(allowed));
        else
          CHECK(words_a[w] == words_b[w]);
    }
  }
}

}  // namespace atmanrl_test
