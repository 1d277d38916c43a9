#pragma once
// --dtype of programs without experiment_options: of which type a model's matrices are and what they are stored as.
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/ops/matmul.hpp>

#include <filesystem>
#include <string>
#include <type_traits>

/// Calls f(std::type_identity<W>) with the type of the matrices: bf16 where it is asked for and a backend has it as a
/// type (KeepsBf16 says what it is elsewhere), else float.
template <class B, class F>
decltype(auto) with_weight_type(std::string const& dtype, F const& f) {
  if constexpr (!atmanrl::KeepsBf16<B, float>)
    if (dtype == "bf16") return f(std::type_identity<atmanrl::bf16>{});
  return f(std::type_identity<float>{});
}

/// What they are stored as. A quantised file stays packed unless something else is asked for.
/// \param dtype  of auto, f32, bf16 and packed
/// \param int8   whether products are to be those of cpu_options::int8_products
/// \throws usage_error for packed where there is nothing to keep, or a backend that cannot; for `int8` without packed
///         weights
template <class B>
atmanrl::weight_storage weight_storage_of(std::string const& dtype, std::filesystem::path const& model = {},
                                          bool int8 = false) {
  using enum atmanrl::weight_storage;
  using atmanrl::expects, atmanrl::usage_error;
  if (dtype != "auto" && dtype != "packed") {
    expects<usage_error>(!int8, "--int8-products is for packed weights, but --dtype is {}", dtype);
    return dtype == "bf16" && atmanrl::KeepsBf16<B, float> ? bf16 : full;
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
  return there_are ? packed : full;
}
