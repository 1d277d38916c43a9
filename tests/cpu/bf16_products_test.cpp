#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"

using namespace atmanrl;

namespace bf16_products_test {

using namespace atmanrl::cpu;

TEST_CASE("bf16_products: the fastest way is chosen for each maker, and a way that is not there is refused") {
  using enum bf16_products;
  processor const zen{vendor::amd, amx_access::none}, sapphire{vendor::intel, amx_access::granted},
      container{vendor::intel, amx_access::refused}, ice_lake{vendor::intel, amx_access::none}, another{};
  for (bool const avx512_bf16 : {false, true}) {
    compiled_products const compiled{.pairs = avx512_bf16, .bfmmla = false};
    CHECK(chosen_products(by_processor, false, zen, compiled) == (avx512_bf16 ? pairs : floats));
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
  compiled_products const plain{false, false}, with_pairs{true, false}, arm{false, true};
  CHECK(chosen_products(pairs, false, sapphire, with_pairs) == pairs);
  CHECK(chosen_products(bf16_products::amx, false, sapphire, plain) == bf16_products::amx);
  CHECK_THROWS_WITH(chosen_products(pairs, false, zen, plain), ATMANRL_CONTAINS("not compiled for"));
  CHECK_THROWS_WITH(chosen_products(bf16_products::amx, false, zen, with_pairs),
                    ATMANRL_CONTAINS("this processor has none"));
  CHECK_THROWS_WITH(chosen_products(bf16_products::amx, false, container, with_pairs),
                    ATMANRL_CONTAINS("does not permit"));

  CHECK(chosen_products(by_processor, false, another, arm) == bf16_products::bfmmla);
  CHECK(chosen_products(by_processor, true, another, arm) == floats);
  CHECK(chosen_products(floats, false, another, arm) == floats);
  CHECK(chosen_products(bfmmla_twin, false, zen, plain) == bfmmla_twin);
  CHECK_THROWS_WITH(chosen_products(bf16_products::bfmmla, false, zen, with_pairs), ATMANRL_CONTAINS("Arm's bf16"));
  CHECK_THROWS_WITH(chosen_products(bf16_products::bfmmla, true, another, arm), ATMANRL_CONTAINS("to be exact"));
  CHECK(products_note(zen, with_pairs) == "");
  CHECK(products_note(zen, plain) == "");
  CHECK(products_note(ice_lake, plain) == "");
  CHECK(products_note(another, arm) == "");
  CHECK_THAT(products_note(sapphire, with_pairs), ATMANRL_CONTAINS("use AMX"));
  CHECK_THAT(products_note(container, with_pairs), ATMANRL_CONTAINS("does not let this program use AMX"));
  CHECK_THAT(products_note(ice_lake, with_pairs), ATMANRL_CONTAINS("VDPBF16PS"));

  cpu_backend const b({.products = amx_twin});
  CHECK(b.products() == amx_twin);
  CHECK(!b.bf16_pairs());
  CHECK_THROWS_AS(cpu_backend({.exact_activations = true, .products = amx_twin}), usage_error);
  CHECK(cpu_backend().products() == fastest_products(this_processor(), {}));
}

}  // namespace bf16_products_test
