// Bytes as UTF-8: what is valid stays, what is not is replaced, however a stream cuts it; normal form C; sentences.
#include <atmanrl/core/printable.hpp>
#include <atmanrl/text/normal_form.hpp>
#include <atmanrl/text/stream_decoder.hpp>
#include <atmanrl/text/utf8.hpp>

#include "fuzz/harness.hpp"

namespace atmanrl_fuzz::utf8_target {
namespace {

using namespace atmanrl;

/// A token for each byte.
struct bytes_as_tokens {
  index_t vocab_size() const { return 256; }
  std::vector<int> encode(std::string_view text) const {
    std::vector<int> out;
    for (char const c : text) out.push_back(std::uint8_t(c));
    return out;
  }
  std::vector<int> encode_with_specials(std::string_view text) const { return encode(text); }
  std::string decode(std::span<int const> ids) const {
    std::string out;
    for (int const id : ids) out += char(id);
    return out;
  }
  std::string_view token_bytes(int id) const {
    static std::string const all = [] {
      std::string s(256, '\0');
      for (int i = 0; i < 256; ++i) s[std::size_t(i)] = char(i);
      return s;
    }();
    return std::string_view(all).substr(std::size_t(id), 1);
  }
  bool is_special(int) const { return false; }
  int bos() const { return -1; }
  std::optional<int> token_id(std::string_view) const { return std::nullopt; }
};

void run(std::string const& input) {
  accepted("", [&] {
    std::string const valid = to_valid_utf8(input);
    std::string again;
    for (std::string_view rest = valid; !rest.empty();) {
      utf8_unit const unit = next_utf8(rest);
      promise(unit.kind == utf8_unit::state::valid && unit.length >= 1 && unit.length <= 4,
              "only whole code points are left");
      append_utf8(again, unit.code);
      rest.remove_prefix(unit.length);
    }
    promise(again == valid, "a code point is written as it was read");
    promise(to_valid_utf8(valid) == valid, "valid text stays");

    static bytes_as_tokens const tokens;
    stream_decoder stream(tokens);
    std::string streamed;
    for (char const c : input) streamed += stream.push(std::uint8_t(c));
    promise(streamed + stream.flush() == valid, "a stream gives the same text");

    std::string const normal = to_nfc(valid);
    promise(to_nfc(normal) == normal, "a text in normal form stays");
    check_sentence("a " + detail::one_line(input, 64), "a ");
    check_sentence("a " + detail::printable(input), "a ");
  });
}

void corpus(seeds& out) {
  out.add("plain");
  out.add("\xc3\xa9 e\xcc\x81 \xe1\x84\x80\xe1\x85\xa1 \xef\xac\x81 \xf0\x9f\x99\x82 \xe2\x80\xae");
  out.add("\xff\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80\xe2\x82\xf0\x9f");
  out.lines("text/answers/mmlu_letters.jsonl", "completion");
}

// A byte becomes U+FFFD or is escaped, and a code point of a decomposition takes four bytes.
registered const here{{.name = "utf8", .run = run, .corpus = corpus, .times = 16}};

}  // namespace
}  // namespace atmanrl_fuzz::utf8_target
