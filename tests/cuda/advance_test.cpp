// Decoding steps that move on by the kernel, against plain loops.
#include <atmanrl/core/random.hpp>
#include <atmanrl/cuda/cuda_backend.cuh>

#include "catch.hpp"
#include "cuda/thread_orders.hpp"
#include "decoding_rows.hpp"

using namespace atmanrl_test;

TEST_CASE("cuda advance: rows, places, shares and notes are those of the plain loops, step after step") {
  reference_backend plain;
  for (int const rows : {1, 3, 128, 300}) {
    for (std::vector<int> const& stop_ids : {std::vector<int>{}, {4}, {0, 11, 5}}) {
      INFO(rows << " rows, " << stop_ids.size() << " stop ids");
      cuda_backend device;
      decoding_rows<reference_backend> expected(plain, rows, 4, stop_ids, 9);
      decoding_rows<cuda_backend> got(device, rows, 4, stop_ids, 9);
      random_stream draw(1, std::uint32_t(rows));
      for (int step = 0; step < 11; ++step) {
        std::vector<int> ids;
        std::vector<float> log_p, entropy;
        for (int r = 0; r < rows; ++r) {
          ids.push_back(draw.between(0, 19));
          log_p.push_back(float(draw.between(-900, 0)));
          entropy.push_back(float(draw.between(0, 900)));
        }
        expected.step(ids, log_p, entropy);
        got.step(ids, log_p, entropy);
        REQUIRE(got.state() == expected.state());
      }
      for (decoded_row const& r : got.rows()) CHECK(r.done == 1);
    }
  }
}
