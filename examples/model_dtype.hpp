#pragma once
// --dtype of programs that do not change the weights: a quantised file stays packed unless something else is asked for.
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/ops/packed_rows.hpp>

#include <filesystem>
#include <string>

/// \param dtype  of auto, f32, bf16 and packed
/// \throws usage_error for packed where there is nothing to keep, or a backend that cannot
template <class B>
atmanrl::quantised_matrices quantised_matrices_of(std::string const& dtype, std::filesystem::path const& model) {
  using enum atmanrl::quantised_matrices;
  using atmanrl::expects, atmanrl::usage_error;
  if (dtype != "auto" && dtype != "packed") return decoded;
  constexpr bool keeps = atmanrl::KeepsBlocks<B, float>;
  expects<usage_error>(keeps || dtype == "auto",
                       "--dtype packed: the blocks of a file are kept by --backend cpu alone");
  bool const there_are = keeps && atmanrl::has_quantised_matrices(model);
  expects<usage_error>(there_are || dtype == "auto", "--dtype packed: {} is no GGUF file with quantised matrices",
                       model.string());
  return there_are ? packed : decoded;
}
