#pragma once
// Figures of a run on the device beside those on the CPU.
#include <atmanrl/io/json.hpp>

#include "catch.hpp"

namespace atmanrl_test {

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

}  // namespace atmanrl_test
