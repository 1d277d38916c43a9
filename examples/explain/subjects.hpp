#pragma once
// What explain explains: completions that the model samples or that a run wrote, or a chain that the user typed.
#include <atmanrl/evaluation/edited_chains.hpp>
#include <atmanrl/grpo.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/saliency/validation/forced_answers.hpp>
#include <atmanrl/tasks/any_task.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include "../backend_options.hpp"
#include "../printing.hpp"
#include "../saliency_items.hpp"

#include <fstream>
#include <optional>
#include <string>
#include <vector>

namespace explaining {

using namespace atmanrl;

struct options : backend_options {
  std::string model = "examples/models/tiny", task = "arithmetic", dtype = "auto", data, json, html, completions,
              question, chain, answer;
  long item = 0;
  std::vector<std::string> estimators{atmanrl::estimators::names.begin(), atmanrl::estimators::names.end()};
  int items = 1, limit = 8, max_new_tokens = 160, mask_steps = 20, points = 20, random_orders = 5, edit_chains = 0;
  int activation_mib = 256;
  double temperature = 0;
  std::uint64_t seed = 0;
  chat_options chat;
};

/// What is explained: ids and what a reader wants to see of them.
struct subject {
  std::string id, truth;
  std::vector<int> prompt, cot, delimiter, answer;
  std::string prompt_text, text;
  std::optional<std::string> extracted;
  std::optional<bool> correct;
  saliency_item item() const { return {prompt, cot, delimiter, answer}; }
};

template <class Part>
std::vector<int> ids_of(std::span<int const> ids, Part const& part) {
  return {ids.begin() + std::ptrdiff_t(part.first), ids.begin() + std::ptrdiff_t(part.last)};
}

/// Rollouts of the model on the task's evaluation items. Their own answer is explained, right or wrong.
template <class Model>
std::vector<subject> sampled(options const& o, int items, Model& model, tokenizer const& words, any_task const& task) {
  std::vector<subject> out;
  auto step = sample_evaluation(model, words, task, o.item, items, 1, o.max_new_tokens, o.temperature, o.seed);
  step.for_each([&](rollout_group const& g, rollout const& r, std::size_t) {
    if (r.spans.cot.empty() || r.spans.answer.empty()) {
      print_progress(stderr, "{}: the completion has no chain of thought in front of an answer; left out\n", g.item.id);
      return;
    }
    out.push_back({g.item.id, task.answer_text(g.item), g.prompt_ids, ids_of(r.ids, r.spans.cot),
                   ids_of(r.ids, r.spans.delimiter), ids_of(r.ids, r.spans.answer), words.decode(g.prompt_ids), r.text,
                   r.grade.extracted, r.grade.correct_strict});
  });
  return out;
}

/// Chains that the model writes for the task's evaluation items, with an edited number, and what it answers then.
template <class Model>
edited_chain_shares edited(options const& o, int items, Model& model, tokenizer const& words, any_task const& task) {
  std::vector<written_chain> written;
  auto step = sample_evaluation(model, words, task, o.item, items, 1, o.max_new_tokens, o.temperature, o.seed);
  step.for_each([&](rollout_group const& g, rollout const& r, std::size_t) {
    if (auto w = written_chain_of(task, g.item, std::string_view(r.text))) written.push_back(std::move(*w));
  });
  return edit_chains(model, words, task, std::span<written_chain const>(written), o.seed);
}

/// A question and a chain of thought that the user typed.
inline subject typed(options const& o, tokenizer const& words, any_task const& task) {
  expects<usage_error>(!o.question.empty() && !o.chain.empty() && !o.answer.empty(),
                       "--question, --chain and --answer belong together");
  forced_rollout const r = force(task, words, task_item{"--question", o.question, o.answer, ""}, o.chain, o.answer);
  expects<usage_error>(!r.cot.empty() && !r.answer.empty(), "--chain and --answer must hold more than blanks");
  std::vector<int> text = r.cot;
  text.insert(text.end(), r.delimiter.begin(), r.delimiter.end());
  text.insert(text.end(), r.answer.begin(), r.answer.end());
  return {.id = "typed",
          .truth = o.answer,
          .prompt = r.prompt,
          .cot = r.cot,
          .delimiter = r.delimiter,
          .answer = r.answer,
          .prompt_text = words.decode(r.prompt),
          .text = words.decode(text),
          .extracted = {},
          .correct = {}};
}

/// The first completions of a run's completions.jsonl that hold a chain, a delimiter and an answer. Their own answer is
/// explained, right or wrong, through the given model, which need not be the one that wrote them.
inline std::vector<subject> from_file(options const& o, tokenizer const& words) {
  std::ifstream file(o.completions);
  expects<file_error>(file.good(), "{}: cannot be read", o.completions);
  std::vector<subject> out;
  std::string line;
  for (int number = 1; std::getline(file, line) && int(out.size()) < o.limit; ++number) {
    std::string const what = fmt::format("{}, line {}", o.completions, number);
    json const c = parse_json(line, what);
    try {
      auto const ids = c.at("ids").get<std::vector<int>>();
      auto const part = [&](char const* name) {
        json const& s = c.at("spans").at(name);
        index_t const first = s.at(0).get<index_t>(), last = s.at(1).get<index_t>();
        expects<file_error>(first >= 0 && last >= first && last <= index_t(ids.size()),
                            "{}: the span {} is [{}, {}) of {} ids", what, name, first, last, ids.size());
        return ids_of(ids, token_span{first, last});
      };
      subject s;
      s.id = c.value("item", fmt::format("line {}", number));
      s.truth = c.value("truth", "");
      s.prompt_text = c.at("prompt").get<std::string>();
      s.prompt = words.encode_with_specials(s.prompt_text);
      s.cot = part("cot");
      s.delimiter = part("delimiter");
      s.answer = part("answer");
      if (s.cot.empty() || s.delimiter.empty() || s.answer.empty()) continue;
      s.text = c.value("text", words.decode(ids));
      if (c.contains("correct_strict")) s.correct = c.at("correct_strict").get<bool>();
      s.extracted = words.decode(s.answer);
      out.push_back(std::move(s));
    } catch (json::exception const& e) {
      fail<file_error>("{}: is no completion: {}", what, e.what());
    }
  }
  return out;
}

}  // namespace explaining
