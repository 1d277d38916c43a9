#pragma once
// --dtype of programs that do not change the weights: a quantised file stays packed unless something else is asked for.
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/ops/packed_rows.hpp>

#include <filesystem>
#include <string>

/// \param dtype  of auto, f32, bf16 and packed
/// \param int8   whether products are to be those of cpu_options::int8_products
/// \throws usage_error for packed where there is nothing to keep, or a backend that cannot; for `int8` without packed
///         weights
template <class B>
atmanrl::quantised_matrices quantised_matrices_of(std::string const& dtype, std::filesystem::path const& model,
                                                  bool int8) {
  using enum atmanrl::quantised_matrices;
  using atmanrl::expects, atmanrl::usage_error;
  if (dtype != "auto" && dtype != "packed") {
    expects<usage_error>(!int8, "--int8-products is for packed weights, but --dtype is {}", dtype);
    return decoded;
  }
  constexpr bool keeps = atmanrl::KeepsBlocks<B, float>;
  expects<usage_error>(keeps || dtype == "auto",
                       "--dtype packed: the blocks of a file are kept by --backend cpu alone");
  bool const there_are = keeps && atmanrl::has_quantised_matrices(model);
  expects<usage_error>(there_are || dtype == "auto", "--dtype packed: {} is no GGUF file with quantised matrices",
                       model.string());
  expects<usage_error>(!int8 || there_are,
                       "--int8-products is for packed weights: {} is no GGUF file with quantised matrices",
                       model.string());
  return there_are ? packed : decoded;
}
