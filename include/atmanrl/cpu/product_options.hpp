#pragma once

/// \file
/// What a command line says of products with bf16 weights and of gradients of weights, as `cpu_options` has it.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/cpu/bf16_products.hpp>
#include <atmanrl/cpu/threads.hpp>

#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// \param o             of a backend
/// \param way           of `bf16_products_names`: --bf16-products
/// \param rounded       --bf16-weight-gradients true
/// \param split         --split-weight-gradients on
/// \param bf16_weights  whether the model's weights are stored as bf16
/// \return them with `products` and `gradients` as those say
/// \throws usage_error  in a sentence that names the option, for what is not there or contradicts another
inline cpu_options with_products(cpu_options o, std::string_view way, bool rounded, bool split, bool bf16_weights,
                                 processor const& p = this_processor(), compiled_products compiled = {}) {
  auto const named = std::ranges::find(bf16_products_names, way);
  expects<usage_error>(named != bf16_products_names.end(), "--bf16-products is \"{}\", it must be one of {}", way,
                       fmt::join(bf16_products_names, ", "));
  expects<usage_error>(!rounded || !split, "--bf16-weight-gradients true contradicts --split-weight-gradients on");
  // Gradients of float weights by the twin need it named as well.
  expects<usage_error>(bf16_weights || way == "auto" || rounded || split,
                       "--bf16-products is {}, but it is for bf16 weights: --dtype bf16", way);
  o.products = bf16_products(named - bf16_products_names.begin());
  o.gradients = split ? weight_gradients::split : rounded ? weight_gradients::rounded : weight_gradients::floats;
  bf16_products const used = chosen_products(o.products, o.exact_activations, p, compiled, "--bf16-products");
  checked_gradients(o.gradients, used,
                    split ? "gradients of --split-weight-gradients on" : "gradients of --bf16-weight-gradients true");
  return o;
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
