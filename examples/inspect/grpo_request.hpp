#pragma once

/// \file
/// The JSON that `grpo` reads, checked field by field: an unknown key or name is an error that lists those that exist.

#include "compute.hpp"

#include <atmanrl/core/error.hpp>
#include <atmanrl/io/json.hpp>

#include <algorithm>
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

}  // namespace detail

/// The policy loss of that name.
/// \throws usage_error listing the names that exist
inline any_loss make_loss(std::string_view name, double clip_low, double clip_high) {
  if (name == "grpo") return atmanrl::losses::grpo{.clip_low = clip_low, .clip_high = clip_high};
  atmanrl::fail<atmanrl::usage_error>("standard input: there is no loss \"{}\"; there is grpo", name);
}

/// The advantage of that name.
/// \throws usage_error listing the names that exist
inline any_advantage make_advantage(std::string_view name) {
  if (name == "mean_centered") return atmanrl::advantages::mean_centered{};
  atmanrl::fail<atmanrl::usage_error>("standard input: there is no advantage \"{}\"; there is mean_centered", name);
}

/// \returns the model's path and the request
/// \throws file_error or usage_error that names the field
inline std::pair<std::filesystem::path, grpo_request> parse_grpo_request(std::string_view text) {
  using atmanrl::expects, atmanrl::usage_error, detail::fields;
  std::string const in = "standard input";
  auto const root = atmanrl::parse_json(text, in);
  fields const top(root, in,
                   {"model", "groups", "loss", "advantage", "clip", "clip_high", "temperature", "micro_batch"});
  grpo_request r;
  double const clip = top.has("clip") ? top.number("clip") : 0.2;
  double const clip_high = top.has("clip_high") ? top.number("clip_high") : clip;
  expects<usage_error>(clip >= 0 && clip_high >= 0,
                       "{}: clip and clip_high are {} and {}, but they must not be negative", in, clip, clip_high);
  r.loss = make_loss(top.has("loss") ? top.text("loss") : "grpo", clip, clip_high);
  r.advantage = make_advantage(top.has("advantage") ? top.text("advantage") : "mean_centered");
  if (top.has("temperature")) r.temperature = top.number("temperature");
  expects<usage_error>(r.temperature > 0, "{}: temperature is {}, but it must be above 0", in, r.temperature);
  if (top.has("micro_batch")) {
    double const n = top.number("micro_batch");
    expects<usage_error>(n >= 0 && n <= 1 << 30 && n == std::floor(n),
                         "{}: micro_batch is {}, not a number of rollouts", in, n);
    r.micro_batch = int(n);
  }
  for (auto const& g : top.array("groups")) {
    auto const group_place = fmt::format("{}: groups[{}]", in, r.groups.size());
    fields const group(g, group_place, {"prompt_ids", "completions"});
    auto& mine = r.groups.emplace_back();
    mine.prompt = group.ids("prompt_ids");
    for (auto const& c : group.array("completions")) {
      auto const place = fmt::format("{}: completions[{}]", group_place, mine.completions.size());
      fields const completion(c, place, {"ids", "logprobs", "reward"});
      mine.completions.push_back(
          {completion.ids("ids"), completion.numbers("logprobs"), float(completion.number("reward"))});
      auto const& last = mine.completions.back();
      expects<usage_error>(last.ids.size() == last.log_probs.size(), "{}: {} ids but {} logprobs", place,
                           last.ids.size(), last.log_probs.size());
    }
    expects<usage_error>(mine.completions.size() >= 2, "{}: a group needs at least 2 completions, this one has {}",
                         group_place, mine.completions.size());
  }
  return {top.text("model"), std::move(r)};
}

}  // namespace inspect
