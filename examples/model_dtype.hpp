#pragma once
// --dtype of programs that do not change the weights: a quantised file stays packed unless something else is asked for.
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/ops/packed_rows.hpp>

#include "program.hpp"

#include <filesystem>
#include <string>
#include <vector>

/// \param names  that the program knows, of auto, f32, bf16 and packed
inline void add_dtype_option(CLI::App& app, std::string& dtype, std::vector<std::string> const& names) {
  app.add_option(
         "--dtype", dtype,
         "of the weights; packed: the blocks of a quantised GGUF file, which compute what f32 does; auto: packed "
         "for such a file, else f32")
      ->capture_default_str()
      ->check(CLI::IsMember(names));
}

/// \throws usage_error for packed where there is nothing to keep
inline atmanrl::quantised_matrices quantised_matrices_of(std::string const& dtype, std::filesystem::path const& model) {
  using enum atmanrl::quantised_matrices;
  if (dtype != "auto" && dtype != "packed") return decoded;
  bool const there_are = atmanrl::has_quantised_matrices(model);
  atmanrl::expects<atmanrl::usage_error>(there_are || dtype == "auto",
                                         "--dtype packed: {} is no GGUF file with quantised matrices", model.string());
  return there_are ? packed : decoded;
}
