#pragma once
// Known answers and small tokenizers that the tests of text/ share.
#include <atmanrl/core/random.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include "catch.hpp"
#include "test_data.hpp"

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl_test {

/// Texts and ids written by make_tokenizer_fixtures.py; at least `least` of them.
inline void check_vectors(atmanrl::tokenizer const& tokenizer, char const* name, std::size_t least) {
  atmanrl::json const all = atmanrl::read_json_file(fixture(name));
  REQUIRE(all.size() >= least);
  for (auto const& one : all) {
    auto const text = one.at("text").get<std::string>();
    auto const ids = one.at("ids").get<std::vector<int>>();
    bool const special = one.value("special", false);
    INFO(one.dump());
    CHECK((special ? tokenizer.encode_with_specials(text) : tokenizer.encode(text)) == ids);
    CHECK(tokenizer.decode(ids) == text);
  }
}

/// `count` random texts of up to `longest` bytes: half of them any bytes, half of them letters that merges know.
inline std::vector<std::string> random_texts(int count, int longest) {
  atmanrl::random_stream random(7, 7);
  constexpr std::string_view usual = "  eeaatthinos\n12.'s#";
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) {
    std::string text(std::size_t(random.between(0, longest)), ' ');
    for (char& c : text)
      c = i % 2 ? char(random.between(0, 255)) : usual[std::size_t(random.between(0, int(usual.size()) - 1))];
    out.push_back(text);
  }
  return out;
}

/// A llama2.c vocabulary file: control pieces, 256 byte pieces, then `pieces` with falling scores.
inline std::string llama2c_file_bytes(std::vector<std::string> const& pieces) {
  std::string out;
  auto const number = [&](auto value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out.append(bytes, sizeof value);
  };
  auto const piece = [&](std::string const& text, float score) {
    number(score);
    number(std::int32_t(text.size()));
    out += text;
  };
  number(std::int32_t(8));
  for (char const* const control : {"<unk>", "\n<s>\n", "\n</s>\n"}) piece(control, 0);
  for (int b = 0; b < 256; ++b) piece(fmt::format("<0x{:02X}>", b), 0);
  float score = 0;
  for (std::string const& text : pieces) piece(text, score--);
  return out;
}

/// Pieces enough to merge " the cat" in steps; "é" is a character of the vocabulary, "è" is not.
inline std::vector<std::string> const small_pieces{"th", "he", " t", "at", "the", " the", "cat",      " c",
                                                   " ",  "t",  "h",  "e",  "c",   "a",    "\xc3\xa9", "s"};

}  // namespace atmanrl_test
