#pragma once
#include <atmanrl/core/random.hpp>
#include <atmanrl/tasks/editable_chains.hpp>

#include "toy_task.hpp"

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl_test {

/// The toy task, whose chains say their last digit.
struct editable_toy : toy_task {
  static std::size_t last_digit(std::string_view chain) { return chain.find_last_of("0123456789"); }
  std::optional<std::string> chain_answer(task_item const&, std::string_view chain) const {
    auto const at = last_digit(chain);
    return at == std::string_view::npos ? std::nullopt : std::optional(std::string(1, chain[at]));
  }
  std::optional<edited_chain> with_chain_answer(task_item const&, std::string_view chain,
                                                std::string const& answer) const {
    auto const at = last_digit(chain);
    if (at == std::string_view::npos) return std::nullopt;
    std::string edited(chain);
    edited.replace(at, 1, answer);
    return edited_chain{edited, answer};
  }
  std::string other_answer(task_item const& item, random_stream& draw, std::span<std::string const> avoid = {}) const {
    for (;;) {
      std::string const y(1, char('0' + draw.between(0, 9)));
      if (y != item.answer && std::find(avoid.begin(), avoid.end(), y) == avoid.end()) return y;
    }
  }
  template <Tokenizer Z>
  std::vector<int> completion(task_item const& item, Z const& tokenizer) const {
    return tokenizer.encode(item.solution);
  }
};
static_assert(EditableChains<editable_toy>);

}  // namespace atmanrl_test
