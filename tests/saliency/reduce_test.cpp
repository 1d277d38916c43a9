#include <atmanrl/saliency/reduce.hpp>

#include "catch.hpp"

#include <array>
#include <map>

using namespace atmanrl;

namespace reduce_test {

TEST_CASE("reduce_mask: token saliency and both rewards are the means of eq. 3 over all allowed entries") {
  struct {
    int prompt, cot, delimiter, answer;
  } const lengths[] = {{3, 4, 1, 2}, {1, 1, 1, 1}, {2, 6, 3, 1}, {5, 3, 2, 4}};
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

TEST_CASE("reduce_mask: every reduction is what its comment says, also with an H for each of three layers") {
  double const c = -0.5;
  for (mask_shape const shape : {mask_shape::pair, mask_shape::column}) {
    for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
      INFO(int(shape) << " " << int(rows));
      int const prompt = 2, cot = 4, total = 10, copies = 3;  // 2 delimiter and 2 answer tokens
      mask_extent const e = make_mask_extent(shape, rows, prompt, prompt + cot, total, 0, copies);
      // The entries from the definition, in the order of the parameters: layer, row, token.
      std::vector<float> mask;
      std::map<std::array<int, 3>, double> hat;
      for (int layer = 0; layer < copies; ++layer) {
        auto const value = [&](int w, int v) { return -1.05f + 0.13f * float((7 * layer + 5 * w + 3 * v) % 11); };
        for (int v = 0; shape == mask_shape::column && v < cot; ++v) mask.push_back(value(0, v));
        for (int w = 0; w <= total - 2; ++w)
          for (int v = 0; v < cot && v + prompt <= w; ++v) {
            if (rows == mask_rows::answer_rows && w < prompt + cot) continue;
            if (shape == mask_shape::pair) mask.push_back(value(w, v));
            hat[{layer, w, v}] = double(shape == mask_shape::pair ? mask.back() : value(0, v)) / c;
          }
      }
      REQUIRE(index_t(mask.size()) == e.count);
      double all = 0, answer = 0, clipped = 0, tokens = 0;
      int answer_count = 0;
      for (auto const& [at, h] : hat) {
        all += h;
        clipped += h < 0 ? 0 : h > 1 ? 1 : h;
        if (at[1] >= prompt + cot) answer += h, ++answer_count;
      }
      std::vector<double> s;
      for (int v = 0; v < cot; ++v) {
        double sum = 0;
        int n = 0;
        for (auto const& [at, h] : hat)
          if (at[2] == v) sum += h, ++n;
        s.push_back(1 - sum / n);
        tokens += s.back();
      }
      double const n = double(hat.size());
      auto const check = [&](saliency_reduction reduction, double wanted, double printed) {
        auto const r = reduce_mask(shape, e, c, mask, reduction);
        INFO("reduction " << int(reduction));
        CHECK(r.re_enabled == Approx(wanted).epsilon(1e-6));
        CHECK(r.as_printed == Approx(printed).epsilon(1e-6));
        for (int v = 0; v < cot; ++v)
          CHECK(r.token_saliency[std::size_t(v)] == Approx(s[std::size_t(v)]).epsilon(1e-5));
      };
      check(saliency_reduction::mean, 1 - all / n, all / n);
      check(saliency_reduction::token_mean, tokens / cot, 1 - tokens / cot);
      check(saliency_reduction::answer_rows, 1 - answer / answer_count, answer / answer_count);
      check(saliency_reduction::clipped, 1 - clipped / n, clipped / n);
      check(saliency_reduction::length_weighted, tokens, cot - tokens);
      // They are five different numbers here, except where the method makes them one.
      if (rows == mask_rows::all_later) CHECK(std::abs(answer / answer_count - all / n) > 1e-3);
      CHECK(std::abs(clipped / n - all / n) > 1e-3);
    }
  }
}

}  // namespace reduce_test
