#include <atmanrl/saliency/reduce.hpp>

#include "catch.hpp"

#include <map>

using namespace atmanrl;

TEST_CASE("reduce_mask: token saliency and both rewards are the means of eq. 3 over all allowed entries") {
  struct { int prompt, cot, delimiter, answer; } const lengths[] = {{3, 4, 1, 2}, {1, 1, 1, 1}, {2, 6, 3, 1}, {5, 3, 2, 4}};
  double const c = -0.4;
  for (auto const [prompt, cot, delimiter, answer] : lengths) {
    int const total = prompt + cot + delimiter + answer;
    for (mask_shape const shape : {mask_shape::pair, mask_shape::column}) {
      for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
        INFO(prompt << " " << cot << " " << delimiter << " " << answer << " " << int(shape) << " " << int(rows));
        // The definition, written down without the extent's own arithmetic.
        auto const allowed = [&](int w, int v) {
          bool const in_cot = v >= prompt && v < prompt + cot;
          bool const in_rows = rows == mask_rows::all_later || w >= prompt + cot;
          return in_cot && w >= v && in_rows && w <= total - 2;
        };
        std::vector<float> mask;
        std::map<std::pair<int, int>, double> hat;  // Ĥ(w, v)
        if (shape == mask_shape::column)
          for (int v = 0; v < cot; ++v) mask.push_back(-0.37f * float(v) + 0.1f);
        for (int w = 0; w < total; ++w) {
          for (int v = 0; v < total; ++v) {
            if (!allowed(w, v)) continue;
            if (shape == mask_shape::pair) mask.push_back(0.01f * float(w * v) - 0.3f * float(w % 3));
            hat[{w, v}] = double(shape == mask_shape::pair ? mask.back() : mask[std::size_t(v - prompt)]) / c;
          }
        }
        mask_extent const e = make_mask_extent(shape, rows, prompt, prompt + cot, total, 17);
        REQUIRE(e.count == index_t(mask.size()));
        REQUIRE(e.entries() == index_t(hat.size()));
        auto const r = reduce_mask(shape, e, c, mask);
        double all = 0;
        REQUIRE(r.token_saliency.size() == std::size_t(cot));
        for (int v = 0; v < cot; ++v) {
          double sum = 0;
          int n = 0;
          for (auto const& [at, value] : hat)
            if (at.second == v + prompt) sum += value, ++n;
          CHECK(r.token_saliency[std::size_t(v)] == Approx(1 - sum / n).margin(1e-6));
          CHECK(rows_that_see(e, v) == n);
          all += sum;
        }
        CHECK(r.as_printed == Approx(all / double(hat.size())).epsilon(1e-9));
        CHECK(r.re_enabled == Approx(1 - all / double(hat.size())).margin(1e-9));
      }
    }
  }
}

TEST_CASE("reduce_mask: an untouched mask has saliency 0 and printed reward 1, a re-enabled one the reverse") {
  mask_extent const e = make_mask_extent(mask_shape::pair, mask_rows::all_later, 2, 5, 8, 0);
  auto const untouched = reduce_mask(mask_shape::pair, e, -0.5, std::vector<float>(std::size_t(e.count), -0.5f));
  CHECK(untouched.re_enabled == 0);
  CHECK(untouched.as_printed == 1);
  CHECK(untouched.token_saliency == std::vector<float>{0, 0, 0});
  auto const open = reduce_mask(mask_shape::pair, e, -0.5, std::vector<float>(std::size_t(e.count), 0.0f));
  CHECK(open.re_enabled == 1);
  CHECK(open.as_printed == 0);
  CHECK(open.token_saliency == std::vector<float>{1, 1, 1});
}
