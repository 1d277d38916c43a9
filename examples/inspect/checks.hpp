#pragma once

/// \file
/// Checks that name the option before the model is loaded: ids outside the vocabulary, texts longer than the model's limit.

#include <atmanrl/core/error.hpp>
#include <atmanrl/io/model_config.hpp>

#include <initializer_list>
#include <span>
#include <string_view>

namespace inspect {

/// \throws usage_error naming the option, the item and the id
inline void check_ids(std::string_view option, std::span<int const> ids, atmanrl::model_config const& config) {
  atmanrl::expects<atmanrl::usage_error>(!ids.empty(), "{}: there are no ids", option);
  for (std::size_t i = 0; i < ids.size(); ++i)
    atmanrl::expects<atmanrl::usage_error>(ids[i] >= 0 && ids[i] < config.vocab, "{}: item {} is id {}, but the model's vocabulary has {} tokens", option,
                                           i + 1, ids[i], config.vocab);
}

/// \throws usage_error when the parts together are longer than the model's positions
inline void check_length(std::string_view option, std::initializer_list<std::size_t> parts, atmanrl::model_config const& config) {
  std::size_t total = 0;
  for (std::size_t const part : parts) total += part;
  atmanrl::expects<atmanrl::usage_error>(total <= std::size_t(config.max_positions), "{}: a sequence of {} tokens is too long: the model's limit is {}", option,
                                         total, config.max_positions);
}

}  // namespace inspect
