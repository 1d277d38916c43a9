#pragma once
// Catch2 2.x (Debian 12, Ubuntu 22.04) and 3.x (later) after one name.
#if __has_include(<catch2/catch_all.hpp>)
#  include <catch2/catch_all.hpp>
using Catch::Approx;
#  define ATMANRL_CONTAINS(text) Catch::Matchers::ContainsSubstring(text)
#else
#  include <catch2/catch.hpp>
#  define ATMANRL_CONTAINS(text) Catch::Contains(text)
#endif
