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

  cpu_backend const b({.products = amx_twin});
  CHECK(b.products() == amx_twin);
  CHECK_THROWS_AS(cpu_backend({.exact_activations = true, .products = amx_twin}), usage_error);
  CHECK(cpu_backend().products() == fastest_products(this_processor(), {}));
}

TEST_CASE("bf16_products: the note at the start says which way is used, and why the build's is not") {
  using enum bf16_products;
  processor const zen{vendor::amd, amx_access::none}, container{vendor::intel, amx_access::refused},
      ice_lake{vendor::intel, amx_access::none};
  compiled_products const plain{false, false}, with_pairs{true, false};
  std::string const start = "note: products with bf16 weights ", rounded = "; they round activations to bf16";
  CHECK(products_note(pairs, zen, with_pairs) == start + "use VDPBF16PS (pairs)" + rounded);
  CHECK(products_note(bf16_products::amx, ice_lake, plain) == start + "use AMX (amx)" + rounded);
  CHECK(products_note(bf16_products::bfmmla, zen, plain) == start + "use BFMMLA (bfmmla)" + rounded);
  CHECK(products_note(floats, zen, plain) == start + "are computed in float (floats)");
  // Asked for: no other way was left out for its speed.
  CHECK(products_note(floats, zen, with_pairs) == start + "are computed in float (floats)");
  CHECK(products_note(floats, ice_lake, with_pairs) ==
        start + "are computed in float (floats); VDPBF16PS (pairs) is not known to be faster on this processor");
  for (bf16_products const twin : {amx_twin, bfmmla_twin})
    CHECK_THAT(products_note(twin, zen, plain),
               ATMANRL_CONTAINS("by plain code (" + std::string(text(twin)) + ")" + rounded));
  CHECK_THAT(amx_note(container), ATMANRL_CONTAINS("does not let this program use AMX"));
  CHECK(amx_note(zen) == "");
  CHECK(amx_note(ice_lake) == "");

  // A backend says what it does itself, of bf16 weights where there are any.
  std::string const before = cpu_backend::build_note(), line = before.empty() ? "" : before + "\n";
  CHECK(cpu_backend().start_note(false) == before);
  CHECK(cpu_backend().start_note(true) == line + products_note(fastest_products(this_processor(), {})));
  cpu_backend const twin({.products = amx_twin, .gradients = weight_gradients::split});
  std::string const split =
      "note: gradients of weights have the bits of AMX's, by plain code (amx_twin), of floats split into two bf16 "
      "numbers each";
  CHECK(twin.start_note(false) == line + split);
  CHECK(twin.start_note(true) == line + products_note(amx_twin) + "\n" + split);
  CHECK(gradients_note(weight_gradients::rounded, bf16_products::amx) ==
        "note: gradients of weights use AMX, of floats rounded to bf16");
}

}  // namespace bf16_products_test
