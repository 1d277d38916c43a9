// Catch2, which 2.x compiles where it is asked to: once, for all programs of these tests.
#if __has_include(<catch2/catch_session.hpp>)
#  include <catch2/catch_session.hpp>
#else
#  define CATCH_CONFIG_RUNNER
#  include <catch2/catch.hpp>
#endif

int run_catch(int argc, char** argv) { return Catch::Session().run(argc, argv); }
