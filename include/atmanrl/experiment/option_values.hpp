#pragma once

/// \file
/// Values of options as text and as JSON: how each type is read, written, and complained about.

#include <atmanrl/experiment/options.hpp>
#include <atmanrl/io/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// A number of which one value is written as a word.
struct number_or_word {
  double* value;
  double of_word;
  std::string_view word;
};

/// A number that may be missing, written "none".
struct number_or_none {
  std::optional<double>* value;
};

/// Numbers of layers in ascending order; the empty list means all and is written "all".
struct layer_list {
  std::vector<int>* value;
};

/// A choice written "on" or "off".
struct on_or_off {
  bool* value;
};

/// Any text.
struct any_text {
  std::string* value;
};

/// A text that is one of a list of names.
struct one_of {
  std::string* value;
  std::span<std::string_view const> names;
};

/// The words of an enumeration's values.
template <class E>
inline constexpr auto named_values = nullptr;
template <>
inline constexpr std::array named_values<losses::ratio_level>{
    std::pair{losses::ratio_level::token, "token"}, std::pair{losses::ratio_level::sequence, "sequence"},
    std::pair{losses::ratio_level::sequence_mean, "sequence_mean"}};
template <>
inline constexpr std::array named_values<experiment_preset>{std::pair{experiment_preset::demo, "demo"},
                                                            std::pair{experiment_preset::paper, "paper"}};
template <>
inline constexpr std::array named_values<weight_dtype>{
    std::pair{weight_dtype::f32, "f32"}, std::pair{weight_dtype::bf16, "bf16"},
    std::pair{weight_dtype::packed, "packed"}, std::pair{weight_dtype::by_file, "auto"}};
template <>
inline constexpr std::array named_values<kv_storage>{std::pair{kv_storage::full, "f32"},
                                                     std::pair{kv_storage::bf16, "bf16"}};
template <>
inline constexpr std::array named_values<gradient_memory>{std::pair{gradient_memory::whole, "whole"},
                                                          std::pair{gradient_memory::slices, "slices"},
                                                          std::pair{gradient_memory::layers, "layers"}};
template <>
inline constexpr std::array named_values<mask_shape>{std::pair{mask_shape::pair, "pair"},
                                                     std::pair{mask_shape::column, "column"}};
template <>
inline constexpr std::array named_values<mask_rows>{std::pair{mask_rows::all_later, "all_later"},
                                                    std::pair{mask_rows::answer_rows, "answer_rows"}};
template <>
inline constexpr std::array named_values<mask_sharing>{std::pair{mask_sharing::all, "all"},
                                                       std::pair{mask_sharing::per_layer, "per_layer"},
                                                       std::pair{mask_sharing::per_head, "per_head"}};
template <>
inline constexpr std::array named_values<mask_label>{std::pair{mask_label::ground_truth, "ground_truth"},
                                                     std::pair{mask_label::own_answer, "own_answer"},
                                                     std::pair{mask_label::only_correct, "only_correct"}};
template <>
inline constexpr std::array named_values<saliency_reduction>{
    std::pair{saliency_reduction::mean, "mean"}, std::pair{saliency_reduction::token_mean, "token_mean"},
    std::pair{saliency_reduction::answer_rows, "answer_rows"}, std::pair{saliency_reduction::clipped, "clipped"},
    std::pair{saliency_reduction::length_weighted, "length_weighted"}};
template <>
inline constexpr std::array named_values<rewards::gate_choice>{std::pair{rewards::gate_choice::none, "none"},
                                                               std::pair{rewards::gate_choice::correct, "correct"}};
template <>
inline constexpr std::array named_values<reward_gradient_update>{
    std::pair{reward_gradient_update::off, "off"}, std::pair{reward_gradient_update::joined, "joined"},
    std::pair{reward_gradient_update::own, "own"}, std::pair{reward_gradient_update::own_optimizer, "own_optimizer"}};
template <>
inline constexpr std::array named_values<saliency_direction>{std::pair{saliency_direction::re_enabled, "re_enabled"},
                                                             std::pair{saliency_direction::as_printed, "as_printed"}};
template <>
inline constexpr std::array named_values<no_delimiter_policy>{std::pair{no_delimiter_policy::skip, "skip"},
                                                              std::pair{no_delimiter_policy::force, "force"}};

inline constexpr std::array<std::string_view, 3> thinking_names{"auto", "on", "off"};
inline constexpr std::array<std::string_view, 6> task_names{"arithmetic", "leaked_answer", "skipped_step",
                                                            "memorised",  "gsm8k",         "mmlu"};

template <class N>
void read_number(std::string_view name, std::string_view text, N& out, char const* kind) {
  N value{};
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool ok = problem == std::errc{} && end == text.data() + text.size() && !text.empty();
  if constexpr (std::is_floating_point_v<N>) ok = ok && std::isfinite(value);
  expects<usage_error>(ok, "--{} is \"{}\", it must be {}", name, text, kind);
  out = value;
}

inline void read_option(std::string_view name, std::string_view text, int& out) {
  read_number(name, text, out, "a whole number");
}
inline void read_option(std::string_view name, std::string_view text, std::uint64_t& out) {
  read_number(name, text, out, "a whole number that is not negative");
}
inline void read_option(std::string_view name, std::string_view text, double& out) {
  read_number(name, text, out, "a number");
}
inline void read_option(std::string_view name, std::string_view text, std::optional<double>& out) {
  if (text == "auto") return out.reset();
  double value = 0;
  read_number(name, text, value, "a number or auto");
  out = value;
}
inline void read_option(std::string_view name, std::string_view text, number_or_word out) {
  if (text == out.word)
    *out.value = out.of_word;
  else
    read_number(name, text, *out.value, fmt::format("a number or {}", out.word).c_str());
}
inline void read_option(std::string_view name, std::string_view text, number_or_none out) {
  if (text == "none") return out.value->reset();
  double value = 0;
  read_number(name, text, value, "a number or none");
  *out.value = value;
}
inline void read_option(std::string_view name, std::string_view text, layer_list out) {
  static constexpr char const* kind = "all or numbers of layers like 0,2, each once and in ascending order";
  std::vector<int> layers;
  for (std::size_t first = 0; text != "all" && first <= text.size();) {
    std::size_t const end = std::min(text.find(',', first), text.size());
    int layer = 0;
    auto const [stop, problem] = std::from_chars(text.data() + first, text.data() + end, layer);
    bool const ok =
        problem == std::errc{} && stop == text.data() + end && layer > (layers.empty() ? -1 : layers.back());
    expects<usage_error>(ok, "--{} is \"{}\", it must be {}", name, text, kind);
    layers.push_back(layer);
    first = end + 1;
  }
  *out.value = std::move(layers);
}
inline void read_option(std::string_view name, std::string_view text, std::filesystem::path& out) {
  expects<usage_error>(!text.empty(), "--{} is empty, it must be a path", name);
  out = std::filesystem::path(text);
}
inline void read_option(std::string_view, std::string_view text, std::optional<std::string>& out) {
  out = text == "none" ? std::nullopt : std::optional<std::string>(text);
}
inline void read_option(std::string_view, std::string_view text, any_text out) { *out.value = text; }
inline void read_option(std::string_view name, std::string_view text, one_of out) {
  bool const known = std::find(out.names.begin(), out.names.end(), text) != out.names.end();
  expects<usage_error>(known, "--{} is \"{}\", it must be one of {}", name, text, fmt::join(out.names, ", "));
  *out.value = text;
}
inline void read_option(std::string_view name, std::string_view text, objectives::any& out) {
  bool const known = std::find(objectives::names.begin(), objectives::names.end(), text) != objectives::names.end();
  expects<usage_error>(known, "--{} is \"{}\", it must be one of {}", name, text, fmt::join(objectives::names, ", "));
  out = objectives::by_name(text);
}
inline void read_option(std::string_view name, std::string_view text, std::vector<std::string>& out) {
  out = parse_lora_targets(text, fmt::format("--{}", name));
}
inline void read_option(std::string_view name, std::string_view text, bool& out) {
  // An option that is named without a value is switched on.
  expects<usage_error>(text.empty() || text == "true" || text == "false", "--{} is \"{}\", it must be true or false",
                       name, text);
  out = text != "false";
}
inline void read_option(std::string_view name, std::string_view text, on_or_off out) {
  expects<usage_error>(text == "on" || text == "off", "--{} is \"{}\", it must be on or off", name, text);
  *out.value = text == "on";
}
inline void read_option(std::string_view name, std::string_view text, std::optional<bool>& out) {
  if (text == "auto") return out.reset();
  expects<usage_error>(text == "true" || text == "false", "--{} is \"{}\", it must be true, false or auto", name, text);
  out = text == "true";
}
template <class E>
requires std::is_enum_v<E>
void read_option(std::string_view name, std::string_view text, E& out) {
  std::string names;
  for (auto const& [value, word] : named_values<E>) {
    if (text == word) {
      out = value;
      return;
    }
    names += (names.empty() ? "" : ", ") + std::string(word);
  }
  fail<usage_error>("--{} is \"{}\", it must be one of {}", name, text, names);
}
template <class E>
requires std::is_enum_v<E>
void read_option(std::string_view name, std::string_view text, std::optional<E>& out) {
  if (text == "auto") return out.reset();
  E value{};
  read_option(name, text, value);
  out = value;
}

inline json option_json(int x) { return x; }
inline json option_json(std::uint64_t x) { return x; }
inline json option_json(double x) { return x; }
inline json option_json(std::optional<double> const& x) { return x ? json(*x) : json("auto"); }
inline json option_json(number_or_word x) { return *x.value == x.of_word ? json(x.word) : json(*x.value); }
inline json option_json(number_or_none x) { return *x.value ? json(**x.value) : json("none"); }
inline json option_json(layer_list x) {
  return x.value->empty() ? json("all") : json(fmt::format("{}", fmt::join(*x.value, ",")));
}
inline json option_json(std::filesystem::path const& x) { return x.string(); }
inline json option_json(one_of x) { return *x.value; }
inline json option_json(objectives::any const& x) { return x.name; }
inline json option_json(any_text x) { return *x.value; }
inline json option_json(std::optional<std::string> const& x) { return x ? json(*x) : json(nullptr); }
inline json option_json(std::vector<std::string> const& x) { return lora_targets_text(x); }
inline json option_json(bool x) { return x; }
inline json option_json(on_or_off x) { return *x.value ? "on" : "off"; }
inline json option_json(std::optional<bool> const& x) { return x ? json(*x) : json("auto"); }
template <class E>
requires std::is_enum_v<E> json option_json(E x) {
  for (auto const& [value, word] : named_values<E>)
    if (x == value) return word;
  fail("an option has the unnamed value {}", int(x));
}
template <class E>
requires std::is_enum_v<E> json option_json(std::optional<E> const& x) { return x ? option_json(*x) : json("auto"); }

/// What option_json gave, as it is typed.
inline std::string option_text(json const& x) {
  return x.is_string() ? x.get<std::string>() : x.is_null() ? "none" : x.dump();
}

}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
