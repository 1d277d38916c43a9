#pragma once

/// \file
/// From sampled tokens to a rollout: its text, its parts, its grade, and the label that a mask is trained for.

#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/rollout.hpp>
#include <atmanrl/tasks/task.hpp>
#include <atmanrl/text/split.hpp>

#include <algorithm>
#include <memory>
#include <span>
#include <string>

namespace atmanrl::inline ATMANRL_ABI {

/// What becomes of a rollout without a delimiter (or without anything before it): no mask, or delimiter and true answer
/// appended after the chain of thought so that a mask exists for every completion. Its outcome stays wrong either way.
enum class no_delimiter_policy { skip, force };

/// \param stop_ids tokens that end a completion; they belong to none of its parts
template <Task K, Tokenizer Z>
rollout annotate(completion c, int prompt, int member, task_item const& item, K const& task, Z const& tokenizer,
                 std::span<int const> stop_ids, no_delimiter_policy no_delimiter) {
  rollout r;
  r.prompt = prompt;
  r.member = member;
  r.ids = std::move(c.ids);
  r.log_probs = std::move(c.log_probs);
  r.entropies = std::move(c.entropies);
  r.truncated = c.truncated;
  r.item = std::make_shared<task_item const>(item);
  auto const stop = std::find_first_of(r.ids.begin(), r.ids.end(), stop_ids.begin(), stop_ids.end());
  std::span<int const> const before_stop(r.ids.data(), std::size_t(stop - r.ids.begin()));
  r.text = tokenizer.decode(before_stop);
  r.spans = split_completion(tokenizer, r.ids, stop_ids, task.delimiter());
  r.grade = task.grade(item, r.text);

  if (r.spans.cot.empty()) return r;
  std::string const answer = task.answer_text(item);
  if (r.spans.has_delimiter && !r.spans.answer.empty()) {
    auto const part = [&](token_span s) {
      return std::span<int const>(r.ids).subspan(std::size_t(s.first), std::size_t(s.size()));
    };
    std::string const own = tokenizer.decode(part(r.spans.delimiter)),
                      own_answer = tokenizer.decode(part(r.spans.answer));
    // The space of an answer token like " B" is part of how answers follow this delimiter.
    std::string const space =
        own_answer.substr(0, std::min(own_answer.size(), own_answer.find_first_not_of(" \t\n\v\f\r")));
    auto label = encode_answer_after_delimiter(tokenizer, answer, own + space, task.delimiter());
    // The sampled tokens stay where the true answer fits after them; not where its first token takes over their space.
    if (tokenizer.decode(label.delimiter) == own)
      label.delimiter.assign(part(r.spans.delimiter).begin(), part(r.spans.delimiter).end());
    r.label_delimiter = std::move(label.delimiter);
    r.label_answer = std::move(label.answer);
  } else if (no_delimiter == no_delimiter_policy::force) {
    // A chain that was cut off or stopped early ends where its answer or stop token would have begun.
    auto label = encode_answer_after_delimiter(tokenizer, answer, delimiter_text(task), task.delimiter());
    r.label_delimiter = std::move(label.delimiter);
    r.label_answer = std::move(label.answer);
  }
  return r;
}

}  // namespace atmanrl::inline ATMANRL_ABI
