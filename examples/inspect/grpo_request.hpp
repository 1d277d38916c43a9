#pragma once

/// \file
/// The JSON that `grpo` reads, checked field by field: an unknown key or name is an error that lists those that exist.

#include "compute.hpp"

#include <atmanrl/core/error.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/ops/temperature.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace inspect {

namespace detail {

/// One object of the input and where it stands.
class fields {
  using file_error = atmanrl::file_error;
  using json = atmanrl::json;

 public:
  fields(json const& object, std::string place, std::initializer_list<std::string_view> known)
      : object_(object), place_(std::move(place)) {
    atmanrl::expects<file_error>(object.is_object(), "{} is {}, not an object", place_, object.type_name());
    for (auto const& [key, value] : object.items())
      atmanrl::expects<file_error>(std::find(known.begin(), known.end(), key) != known.end(),
                                   "{}: the key \"{}\" is unknown; there are {}", place_, key, fmt::join(known, ", "));
  }

  bool has(char const* key) const { return object_.contains(key); }
  std::string at(std::string_view key) const { return fmt::format("{}: {}", place_, key); }

  json const& array(char const* key) const {
    json const& a = get(key);
    atmanrl::expects<file_error>(a.is_array(), "{} is {}, not an array", at(key), a.type_name());
    atmanrl::expects<file_error>(!a.empty(), "{} is empty", at(key));
    return a;
  }
  std::string text(char const* key) const {
    json const& s = get(key);
    atmanrl::expects<file_error>(s.is_string(), "{} is {}, not a string", at(key), s.type_name());
    return s.get<std::string>();
  }
  double number(char const* key) const { return finite(get(key), at(key)); }
  bool flag(char const* key) const {
    json const& b = get(key);
    atmanrl::expects<file_error>(b.is_boolean(), "{} is {}, not true or false", at(key), shortened(b));
    return b.get<bool>();
  }
  std::vector<float> numbers(char const* key) const {
    std::vector<float> out;
    for (json const& x : array(key)) out.push_back(float(finite(x, fmt::format("{}[{}]", at(key), out.size()))));
    return out;
  }
  std::vector<int> ids(char const* key) const {
    std::vector<int> out;
    for (json const& id : array(key)) {
      // Not negative, so that the parser has read it as unsigned.
      bool const fits =
          id.is_number_unsigned() && id.get<std::uint64_t>() <= std::uint64_t(std::numeric_limits<int>::max());
      atmanrl::expects<file_error>(fits, "{}[{}] is {}, not a token id", at(key), out.size(), shortened(id));
      out.push_back(id.get<int>());
    }
    return out;
  }

 private:
  json const& get(char const* key) const {
    atmanrl::expects<file_error>(has(key), "{} is missing", at(key));
    return object_[key];
  }
  static std::string shortened(json const& value) {
    return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 40);
  }
  // Everything is computed in float, so a number must be finite there.
  static double finite(json const& value, std::string const& where) {
    atmanrl::expects<file_error>(value.is_number(), "{} is {}, not a number", where, shortened(value));
    auto const x = value.get<double>();
    atmanrl::expects<file_error>(std::isfinite(float(x)), "{} is {}, which is too large", where, shortened(value));
    return x;
  }

  json const& object_;
  std::string place_;
};

/// The loss that the request names, with its KL term. `clip` alone is both sides of the range; cispo has none, and its
/// cap is `clip_high`.
inline atmanrl::losses::any make_loss(fields const& top, double beta) {
  std::string const name = top.has("loss") ? top.text("loss") : "grpo";
  atmanrl::losses::settings s;
  if (name != "cispo" && top.has("clip")) s.clip_low = s.clip_high = top.number("clip");
  if (top.has("clip_high")) s.clip_high = top.number("clip_high");
  if (top.has("delta")) s.delta = top.number("delta");
  if (top.has("ratio")) {
    static constexpr std::array<std::string_view, 3> levels{"token", "sequence", "sequence_mean"};
    std::string const level = top.text("ratio");
    auto const at = std::find(levels.begin(), levels.end(), level);
    atmanrl::expects<atmanrl::usage_error>(at != levels.end(), "there is no ratio \"{}\"; there are {}", level,
                                           fmt::join(levels, ", "));
    s.level = atmanrl::losses::ratio_level(at - levels.begin());
  }
  return atmanrl::losses::add_kl(atmanrl::losses::by_name(name, s), top.has("kl") ? top.text("kl") : "k3", beta);
}

}  // namespace detail

/// \returns the model's path and the request
/// \throws file_error or usage_error that names the field
inline std::pair<std::filesystem::path, grpo_request> parse_grpo_request(std::string_view text) {
  using atmanrl::expects, atmanrl::usage_error, detail::fields;
  std::string const in = "standard input";
  auto const root = atmanrl::parse_json(text, in);
  fields const top(root, in,
                   {"model", "groups", "loss", "advantage", "clip", "clip_high", "delta", "ratio", "kl", "beta",
                    "entropy_bonus", "mask_truncated", "max_tokens", "reward_weights", "temperature", "micro_batch"});
  auto const number = [&](char const* key, double otherwise) { return top.has(key) ? top.number(key) : otherwise; };
  auto const count = [&](char const* key, char const* what) {
    double const n = number(key, 0);
    expects<usage_error>(n >= 0 && n <= 1 << 30 && n == std::floor(n), "{}: {} is {}, not a number of {}", in, key, n,
                         what);
    return int(n);
  };
  grpo_request r;
  std::string const advantage = top.has("advantage") ? top.text("advantage") : "mean_centered";
  double const beta = number("beta", 0);
  try {
    r.loss = detail::make_loss(top, beta);
    r.advantage = atmanrl::advantages::by_name(advantage);
    expects<usage_error>(!r.advantage.per_token(),
                         "the advantage {} is one of tokens, which takes more of rollouts than a request holds",
                         advantage);
  } catch (usage_error const& e) {
    atmanrl::fail<usage_error>("{}: {}", in, e.what());
  }
  r.advantage_looks_beyond_group = atmanrl::advantages::looks_beyond_group(advantage);
  r.temperature = number("temperature", 1);
  expects<usage_error>(atmanrl::is_temperature(r.temperature),
                       "{}: temperature is {}, but it must lie between {} and {}", in, r.temperature,
                       atmanrl::lowest_temperature, atmanrl::highest_temperature);
  r.entropy_bonus = number("entropy_bonus", 0);
  r.micro_batch = count("micro_batch", "rollouts");
  r.max_tokens = std::size_t(count("max_tokens", "tokens"));
  bool const mask_truncated = top.has("mask_truncated") && top.flag("mask_truncated");
  r.reward_weights = top.has("reward_weights") ? top.numbers("reward_weights") : std::vector<float>{};
  for (auto const& g : top.array("groups")) {
    auto const group_place = fmt::format("{}: groups[{}]", in, r.groups.size());
    fields const group(g, group_place, {"prompt_ids", "completions"});
    auto& mine = r.groups.emplace_back();
    mine.prompt = group.ids("prompt_ids");
    for (auto const& c : group.array("completions")) {
      auto const place = fmt::format("{}: completions[{}]", group_place, mine.completions.size());
      fields const completion(c, place,
                              {"ids", "logprobs", "reward", "reward_parts", "reference_logprobs", "truncated"});
      expects<usage_error>(!(completion.has("reward") && completion.has("reward_parts")),
                           "{}: reward and reward_parts contradict each other", place);
      auto& last = mine.completions.emplace_back();
      last.ids = completion.ids("ids");
      last.log_probs = completion.numbers("logprobs");
      if (completion.has("reward_parts"))
        last.rewards = completion.numbers("reward_parts");
      else
        last.rewards = {float(completion.number("reward"))};
      if (r.reward_weights.empty()) r.reward_weights.assign(last.rewards.size(), 1.0f);
      expects<usage_error>(last.rewards.size() == r.reward_weights.size(),
                           "{}: {} reward_parts, but there are {} weights", place, last.rewards.size(),
                           r.reward_weights.size());
      expects<usage_error>(last.ids.size() == last.log_probs.size(), "{}: {} ids but {} logprobs", place,
                           last.ids.size(), last.log_probs.size());
      if (beta != 0) {
        last.reference_log_probs = completion.numbers("reference_logprobs");
        expects<usage_error>(last.ids.size() == last.reference_log_probs.size(), "{}: {} ids but {} reference_logprobs",
                             place, last.ids.size(), last.reference_log_probs.size());
      }
      last.masked = mask_truncated && completion.has("truncated") && completion.flag("truncated");
    }
    expects<usage_error>(mine.completions.size() >= 2, "{}: a group needs at least 2 completions, this one has {}",
                         group_place, mine.completions.size());
    expects<usage_error>(
        !r.advantage_looks_beyond_group || mine.completions.size() == r.groups.front().completions.size(),
        "{}: {} completions, but {} needs groups of equal size and the first has {}", group_place,
        mine.completions.size(), advantage, r.groups.front().completions.size());
  }
  return {top.text("model"), std::move(r)};
}

}  // namespace inspect
