#pragma once
// Where a program computes, as its command line says it. The experiments have the same as options of the library.
#include <atmanrl/core/error.hpp>
#include <atmanrl/cpu/product_options.hpp>
#include <atmanrl/cpu/threads.hpp>

#include <concepts>
#include <optional>
#include <string>

/// Options of a program are derived from it.
struct backend_options {
  std::string backend = "cpu";
  int threads = 0;  ///< of the CPU; 0: all
  // Of the CPU, for programs that ask for them.
  bool int8_products = false;                ///< products with packed weights round activations to 8 bits
  std::string bf16_products = "auto";        ///< a name of atmanrl::bf16_products_names
  bool split_weight_gradients = false;       ///< by AMX, of factors that are two bf16 numbers each
  bool rounds_weight_gradients_too = false;  ///< `bf16_weight_gradients` is of the CPU as well
  // Of a GPU.
  int device = 0;  ///< its ordinal; of several ranks on a machine each takes the next one
  bool tf32 = false;
  std::optional<bool> bf16_weight_gradients;  ///< none: with bf16 weights
  bool graphs = true;                         ///< steps that repeat are launched as CUDA graphs
  bool skinny_products = false;               ///< with bf16 weights: few rows in a fixed order of additions
};

/// \throws atmanrl::usage_error for options of one backend with another
inline void check(backend_options const& o) {
  using atmanrl::expects, atmanrl::usage_error;
  if (o.backend == "cuda") {
    expects<usage_error>(!o.int8_products, "--int8-products is for --backend cpu");
    expects<usage_error>(o.bf16_products == "auto", "--bf16-products is for --backend cpu");
    expects<usage_error>(!o.split_weight_gradients, "--split-weight-gradients is for --backend cpu");
    return;
  }
  expects<usage_error>(o.device == 0, "--device is {}, but it is for GPUs: --backend cuda", o.device);
  expects<usage_error>(!o.tf32, "--tf32 is for GPUs: --backend cuda");
  expects<usage_error>(o.rounds_weight_gradients_too || !o.bf16_weight_gradients.value_or(false),
                       "--bf16-weight-gradients is for GPUs: --backend cuda");
  expects<usage_error>(o.graphs, "--graphs is off, but graphs are for GPUs: --backend cuda");
  expects<usage_error>(!o.skinny_products, "--skinny-products is for GPUs: --backend cuda");
}

/// \param bf16_weights  whether the weights are stored as bf16
/// \throws atmanrl::usage_error for ways to compute that this processor or program has not
template <class B>
B make_backend(backend_options const& o, bool bf16_weights) {
  if constexpr (std::constructible_from<B, atmanrl::cpu_options>) {
    return B(atmanrl::cpu::with_products({.threads = o.threads, .int8_products = o.int8_products}, o.bf16_products,
                                         o.bf16_weight_gradients.value_or(false), o.split_weight_gradients,
                                         bf16_weights));
  } else {
    atmanrl::expects<atmanrl::usage_error>(!bf16_weights || o.bf16_weight_gradients.value_or(true),
                                           "--bf16-weight-gradients is false, but with bf16 weights the factors of all "
                                           "products are bf16 on a GPU: leave it out, or use --dtype f32");
    atmanrl::expects<atmanrl::usage_error>(bf16_weights || !o.skinny_products,
                                           "--skinny-products is on, but it is for bf16 weights, and these are float");
    return B(typename B::options_type{.device = o.device,
                                      .tf32 = o.tf32,
                                      .bf16_weight_gradients = o.bf16_weight_gradients.value_or(bf16_weights),
                                      .skinny_products = o.skinny_products,
                                      .graphs = o.graphs});
  }
}
