#pragma once
// What every program does: work, and turn what is thrown into one line and an exit status. Its arguments are read by
// arguments.hpp, apart, as CLI11 takes long to compile.
#include <atmanrl/comm/launched.hpp>
#include <atmanrl/core/error.hpp>

#include <fmt/format.h>

#include "printing.hpp"
#include "terminal/standard_streams.hpp"

#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

#if defined(__GLIBC__)
#  include <malloc.h>
#endif

/// Thrown where the command line asked for the help, after it was printed.
struct help_shown {};

/// Runs a program's work and turns what it throws into one line and an exit status: 2 for bad input, 1 for anything
/// else that goes wrong.
template <class Work>
int run_program(Work&& work) {
#if defined(__GLIBC__)
  // Buffers that grow in the first steps leave holes; blocks of their own go back to the system. By itself glibc would
  // move the limit up to 32 MiB, and a run of the bundled model would take a quarter more.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
  terminal::open_closed_standard_streams();
  auto const complain = [](std::string_view sentence, int status) {
    // Processes that were started together have one command line, and one complaint about it.
    if (atmanrl::comm::launched().rank > 0) return status;
    terminal::print_if_possible(stderr, atmanrl::detail::one_line(sentence) + "\n");
    return status;
  };
  try {
    return work();
  } catch (help_shown const&) {
    return 0;
  } catch (atmanrl::usage_error const& e) {
    return complain(e.what(), 2);
  } catch (atmanrl::file_error const& e) {
    return complain(e.what(), 2);
  } catch (std::filesystem::filesystem_error const& e) {
    return complain(e.what(), 2);
  } catch (std::bad_alloc const&) {
    return complain("out of memory: the options ask for more than there is", 1);
  } catch (std::length_error const&) {
    return complain("out of memory: the options ask for more than there is", 1);
  } catch (std::exception const& e) {
    return complain(e.what(), 1);
  }
}
