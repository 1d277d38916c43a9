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
/// Beside it, for programs that take bf16 weights.
inline void add_products_option(CLI::App& app, backend_options& o) {
  app.add_option("--bf16-products", o.bf16_products,
                 "on a CPU, with bf16 weights: the instructions of products, or the bits of those that it has not "
                 "(twin, hundreds of times slower); auto: by the processor, and the note at the start says which")
      ->capture_default_str()
      ->check(CLI::IsMember(
          std::vector<std::string>(atmanrl::bf16_products_names.begin(), atmanrl::bf16_products_names.end())));
}
/// Beside both and add_backend_options, for programs that compute gradients of weights.
inline void add_weight_gradients_option(CLI::App& app, backend_options& o) {
  o.rounds_weight_gradients_too = true;
  app.get_option("--bf16-weight-gradients")
      ->description(
          "true (on a CPU by AMX) rounds the factors of weights' gradients to bf16; auto: with bf16 weights "
          "on a GPU");
  app.add_option_function<std::string>(
         "--split-weight-gradients", [&o](std::string const& text) { o.split_weight_gradients = text == "on"; },
         "on a CPU by AMX: the factors of weights' gradients are split into two bf16 numbers each")
      ->default_str("off")
      ->check(CLI::IsMember({"on", "off"}));
}
/// Beside it, for programs that take packed weights.
inline void add_int8_option(CLI::App& app, backend_options& o) {
  app.add_flag("--int8-products", o.int8_products,
               "on a CPU, with packed weights: faster products of activations that are rounded to 8 bits, which are no "
               "longer those of the decoded model");
}
