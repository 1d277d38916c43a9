#include <atmanrl/cpu/product_options.hpp>

#include "catch.hpp"

using namespace atmanrl;

namespace product_options_test {

using namespace atmanrl::cpu;

TEST_CASE("product options: a way by its name, and a sentence with the option's name where it is not there") {
  processor const zen{vendor::amd, amx_access::none}, sapphire{vendor::intel, amx_access::granted},
      container{vendor::intel, amx_access::refused};
  compiled_products const plain{false, false}, with_pairs{true, false}, arm{false, true};
  struct asked {
    std::string_view way = "auto";
    bool rounded = false, split = false, bf16_weights = true;
  };
  auto const given = [](asked a, processor p, compiled_products c) {
    return with_products({.threads = 3, .int8_products = true}, a.way, a.rounded, a.split, a.bf16_weights, p, c);
  };
  auto const nothing = given({}, zen, with_pairs);
  CHECK(nothing.threads == 3);
  CHECK(nothing.int8_products);
  CHECK(nothing.products == bf16_products::by_processor);
  CHECK(nothing.gradients == weight_gradients::floats);
  CHECK(given({.way = "floats"}, zen, with_pairs).products == bf16_products::floats);
  CHECK(given({.way = "pairs"}, sapphire, with_pairs).products == bf16_products::pairs);
  CHECK(given({.way = "amx"}, sapphire, plain).products == bf16_products::amx);
  CHECK(given({.way = "amx_twin"}, zen, plain).products == bf16_products::amx_twin);
  CHECK(given({.way = "bfmmla"}, {}, arm).products == bf16_products::bfmmla);
  CHECK(given({.way = "bfmmla_twin"}, zen, plain).products == bf16_products::bfmmla_twin);

  // Of float weights, too.
  CHECK(given({.split = true, .bf16_weights = false}, sapphire, plain).gradients == weight_gradients::split);
  CHECK(given({.rounded = true, .bf16_weights = false}, sapphire, plain).gradients == weight_gradients::rounded);
  auto const twin = given({.way = "amx_twin", .split = true, .bf16_weights = false}, zen, plain);
  CHECK(twin.products == bf16_products::amx_twin);
  CHECK(twin.gradients == weight_gradients::split);

  struct wrong {
    asked options;
    processor machine;
    compiled_products compiled;
    char const* sentence;
  };
  for (wrong const& w : {
           wrong{{.way = "vnni"}, zen, plain, "--bf16-products is \"vnni\", it must be one of auto, floats, pairs"},
           wrong{{.way = "by_processor"}, zen, plain, "--bf16-products is \"by_processor\""},
           wrong{{.way = "pairs"}, zen, plain, "--bf16-products is pairs, but this program was not compiled for AVX"},
           wrong{{.way = "bfmmla"}, zen, plain, "--bf16-products is bfmmla, but this program was not compiled for Arm"},
           wrong{{.way = "amx"}, zen, plain, "--bf16-products is amx, but this processor has none"},
           wrong{{.way = "amx"}, container, plain, "--bf16-products is amx, but the system does not permit it"},
           wrong{{.way = "floats", .bf16_weights = false}, zen, plain, "--bf16-products is floats, but it is for bf16"},
           wrong{{.rounded = true, .split = true}, sapphire, plain, "contradicts --split-weight-gradients on"},
           wrong{{.split = true},
                 zen,
                 with_pairs,
                 "gradients of --split-weight-gradients on need products by amx or amx_twin, not pairs"},
           wrong{{.way = "floats", .rounded = true},
                 sapphire,
                 plain,
                 "gradients of --bf16-weight-gradients true need products by amx or amx_twin, not floats"},
       }) {
    CAPTURE(w.sentence);
    CHECK_THROWS_WITH(given(w.options, w.machine, w.compiled), ATMANRL_CONTAINS(w.sentence));
  }
}

}  // namespace product_options_test
