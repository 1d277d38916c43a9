#pragma once
// The command line's part of model_dtype.hpp.
#include <CLI/CLI.hpp>

#include "backend_options.hpp"

#include <string>
#include <vector>

/// \param names  that the program knows, of auto, f32, bf16 and packed
inline void add_dtype_option(CLI::App& app, std::string& dtype, std::vector<std::string> const& names) {
  app.add_option(
         "--dtype", dtype,
         "of the weights; packed: the blocks of a quantised GGUF file, which compute what f32 does; auto: packed "
         "for such a file on a CPU, else f32")
      ->capture_default_str()
      ->check(CLI::IsMember(names));
}
/// Beside it, for programs that take packed weights.
inline void add_int8_option(CLI::App& app, backend_options& o) {
  app.add_flag("--int8-products", o.int8_products,
               "on a CPU, with packed weights: faster products of activations that are rounded to 8 bits, which are no "
               "longer those of the decoded model");
}
