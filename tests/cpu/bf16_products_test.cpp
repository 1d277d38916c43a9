#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"

using namespace atmanrl;

namespace bf16_products_test {

using namespace atmanrl::cpu;

TEST_CASE("bf16_products: the fastest way is chosen for each maker, and a way that is not there is refused") {
  using enum bf16_products;
  processor const zen{vendor::amd, amx_access::none}, sapphire{vendor::intel, amx_access::granted},
      container{vendor::intel, amx_access::refused}, ice_lake{vendor::intel, amx_access::none}, another{};
  for (bool const compiled : {false, true}) {
    CHECK(chosen_products(by_processor, false, zen, compiled) == (compiled ? pairs : floats));
    CHECK(chosen_products(by_processor, false, sapphire, compiled) == bf16_products::amx);
    CHECK(chosen_products(by_processor, false, container, compiled) == floats);
    CHECK(chosen_products(by_processor, false, ice_lake, compiled) == floats);
    CHECK(chosen_products(by_processor, false, another, compiled) == floats);
    for (processor const& p : {zen, sapphire, container, another}) {
      CHECK(chosen_products(by_processor, true, p, compiled) == floats);
      CHECK(chosen_products(floats, true, p, compiled) == floats);
      CHECK(chosen_products(amx_twin, false, p, compiled) == amx_twin);
      CHECK_THROWS_WITH(chosen_products(amx_twin, true, p, compiled), ATMANRL_CONTAINS("products is amx_twin"));
    }
  }
  CHECK(chosen_products(pairs, false, sapphire, true) == pairs);
  CHECK(chosen_products(bf16_products::amx, false, sapphire, false) == bf16_products::amx);
  CHECK_THROWS_WITH(chosen_products(pairs, false, zen, false), ATMANRL_CONTAINS("not compiled for"));
  CHECK_THROWS_WITH(chosen_products(bf16_products::amx, false, zen, true), ATMANRL_CONTAINS("this processor has none"));
  CHECK_THROWS_WITH(chosen_products(bf16_products::amx, false, container, true), ATMANRL_CONTAINS("does not permit"));

  CHECK(products_note(zen, true) == "");
  CHECK(products_note(zen, false) == "");
  CHECK(products_note(ice_lake, false) == "");
  CHECK_THAT(products_note(sapphire, true), ATMANRL_CONTAINS("use AMX"));
  CHECK_THAT(products_note(container, true), ATMANRL_CONTAINS("does not let this program use AMX"));
  CHECK_THAT(products_note(ice_lake, true), ATMANRL_CONTAINS("VDPBF16PS"));

  cpu_backend const b({.products = amx_twin});
  CHECK(b.products() == amx_twin);
  CHECK(!b.bf16_pairs());
  CHECK_THROWS_AS(cpu_backend({.exact_activations = true, .products = amx_twin}), usage_error);
  CHECK(cpu_backend().products() == fastest_products(this_processor(), simd::has_dot_bf16));
}

}  // namespace bf16_products_test
