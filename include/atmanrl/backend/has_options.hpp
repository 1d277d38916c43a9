#pragma once

/// \file
/// What a backend is made from.

#include <concepts>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI::detail {

/// A backend that is made from a struct of options.
template <class B>
concept HasOptions = requires {
  typename B::options_type;
}
&&std::constructible_from<B, typename B::options_type>;

/// Whether a backend has the options of one on a GPU.
template <class B>
concept HasDeviceOptions = requires(typename B::options_type c) {
  c.device;
  c.tf32;
  c.bf16_weight_gradients;
  c.skinny_products;
  c.graphs;
};

}  // namespace atmanrl::inline ATMANRL_ABI::detail
