#pragma once
// Figures of a run on the device beside those on the CPU.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/io/json.hpp>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <map>
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

/// Euclidean.
inline double norm_of(std::span<float const> x) {
  double square = 0;
  for (float const each : x) square += double(each) * each;
  return std::sqrt(square);
}

/// |a - b| / |b|, in Euclidean norms.
inline double relative_difference(std::span<float const> a, std::span<float const> b) {
  REQUIRE(a.size() == b.size());
  std::vector<float> difference(a.begin(), a.end());
  for (std::size_t i = 0; i < a.size(); ++i) difference[i] -= b[i];
  double const norm = norm_of(b), distance = norm_of(difference);
  return norm > 0 ? distance / norm : distance > 0;
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

/// `name`, of a flattened object, without the numbers of its arrays' entries.
inline std::string place_of(std::string const& name) {
  std::string out;
  for (std::string const& part : parts_of(name, "/"))
    out += std::ranges::all_of(part, [](unsigned char c) { return std::isdigit(c) != 0; }) ? "/" : "/" + part;
  return out;
}

/// Every number in both to a relative tolerance, all else exactly. A small entry of an array is a sum of terms as large
/// as the other entries', with their rounding: so its difference is taken relative to the larger of itself and the root
/// mean square of what stands in its place (the saliencies of all tokens, say).
/// \param floor  absolute: what sums that cancel may differ by, or figures that were rounded before
inline void check_alike(atmanrl::json const& a, atmanrl::json const& b, double tolerance, double floor = 0) {
  atmanrl::json const flat_a = a.flatten(), flat_b = b.flatten();
  REQUIRE(flat_a.size() == flat_b.size());
  struct squares {
    double sum = 0;
    int count = 0;
  };
  std::map<std::string, squares> places;
  for (auto const& [name, value] : flat_b.items()) {
    if (!value.is_number()) continue;
    squares& of = places[place_of(name)];
    of.sum += value.get<double>() * value.get<double>();
    ++of.count;
  }
  for (auto const& [name, value] : flat_a.items()) {
    atmanrl::json const& other = flat_b.at(name);
    INFO(name << ": " << value << ", on the CPU " << other);
    // A float without a fraction is written as an integer.
    bool const is_float =
        value.is_number() && other.is_number() && (value.is_number_float() || other.is_number_float());
    if (!is_float) {
      CHECK(value == other);
      continue;
    }
    squares const& of = places.at(place_of(name));
    double const expected = other.get<double>(), scale = std::max(std::abs(expected), std::sqrt(of.sum / of.count));
    // Two tokens of nearly the same saliency may change their ranks.
    double const allowed = name.find("spearman") == std::string::npos ? tolerance * scale + floor : 0.05;
    CHECK(std::abs(value.get<double>() - expected) <= allowed);
  }
}

/// Two texts with tables in Markdown: numbers to a relative tolerance and to their last printed digit after the point,
/// all else exactly, but for columns of seconds. Rank correlations (ρ) may move as in check_alike.
inline void check_alike_tables(std::string const& a, std::string const& b, double tolerance) {
  auto const number = [](std::string const& word) {
    double x = NAN;
    auto const [end, problem] = std::from_chars(word.data(), word.data() + word.size(), x);
    return problem == std::errc{} && end == word.data() + word.size() ? x : NAN;
  };
  auto const last_digit = [](std::string const& word) {
    std::size_t const point = word.find('.');
    return point == std::string::npos ? 0 : std::pow(10.0, -double(word.size() - point - 1));
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
      bool const is_correlation = header[c].starts_with(" ρ ");
      auto const words_a = parts_of(cells_a[c], " [],;"), words_b = parts_of(cells_b[c], " [],;");
      REQUIRE(words_a.size() == words_b.size());
      for (std::size_t w = 0; w < words_b.size(); ++w)
        if (double const x = number(words_b[w]); std::isfinite(x))
          CHECK(std::abs(number(words_a[w]) - x) <=
                (is_correlation ? 0.05 : tolerance * std::abs(x) + last_digit(words_b[w])));
        else
          CHECK(words_a[w] == words_b[w]);
    }
  }
}

}  // namespace atmanrl_test
