// Conversations as ids. The parts of an input stand between NULs: which format (a letter), then the messages, each with
// a letter for its role in front; after the format "t" the first part is a template.
#include <atmanrl/text/tokenizer.hpp>

#include <optional>

#include "fuzz/harness.hpp"
#include "test_data.hpp"

namespace atmanrl_fuzz::chat_target {
namespace {

using namespace atmanrl;

struct model {
  tokenizer tokens;
  chat_format chat;
};

std::vector<model> const& models() {
  static std::vector<model> const all = [] {
    std::vector<model> out;
    for (char const* const name : {"chatml", "llama30", "distill", "base"}) {
      tokenizer const t = tokenizer::load(atmanrl_test::fixture("text/chat") / name);
      out.push_back({t, t.chat()});
    }
    tokenizer const& chatml = out.front().tokens;
    out.push_back({chatml, named_chat(chatml, "chatml")});
    out.push_back({out[1].tokens, named_chat(out[1].tokens, "llama3.1")});
    return out;
  }();
  return all;
}

void run(std::string const& input) {
  if (input.empty()) return;
  auto [head, rest] = halves(input);
  char const which = head.empty() ? 'a' : head[0];
  model const* used = &models()[std::uint8_t(which) % models().size()];
  std::optional<model> own;
  if (which == 't') {
    auto const [text, messages] = halves(rest);
    own = model{
        models()[0].tokens,
        own_chat(
            {std::string(text), "the template", "", {{"bos_token", "<|im_start|>"}, {"eos_token", "<|im_end|>"}}})};
    used = &*own;
    rest = messages;
  }
  std::vector<chat_message> messages;
  while (!rest.empty() && messages.size() < 64) {
    auto const [text, behind] = halves(rest);
    rest = behind;
    char const role = text.empty() ? 'u' : text[0];
    messages.push_back({role == 's'   ? "system"
                        : role == 'a' ? "assistant"
                        : role == 'u' ? "user"
                                      : std::string(1, role),
                        std::string(text.substr(text.empty() ? 0 : 1))});
  }
  for (bool const answer_follows : {true, false})
    accepted<usage_error>("", [&] {
      std::vector<int> const ids = encode_chat(used->tokens, used->chat, messages, answer_follows);
      for (int const id : ids) promise(used->tokens.has_token(id), "ids are those of tokens");
      promise(ids == encode_chat(used->tokens, used->chat, messages, answer_follows), "the same chat has the same ids");
    });
  if (which == 't') {
    accepted<usage_error>("", [&] { stop_ids(own->tokens.with_chat(own->chat), std::vector<int>{1}); });
    std::string const system(head.substr(1));
    accepted<usage_error>("", [&] { own->tokens.with_chat(chat_options{.system = system}); });
  }
}

void corpus(seeds& out) {
  auto const joined = [](std::initializer_list<std::string> parts) {
    std::string text;
    for (std::string const& p : parts) text += (text.empty() ? "" : std::string(1, '\0')) + p;
    return text;
  };
  for (char which = 'a'; which < 'g'; ++which)
    out.add(joined(
        {std::string(1, which), "sBe brief.", "uWhat is 1 + 1?<|im_end|>", "aIt is \xc3\xa9 2.", "uThanks\xff"}));
  json const all = read_json_file(atmanrl_test::fixture("text/jinja_vectors.json"));
  for (json const& one : all)
    out.add(joined({"t", one["template"].get<std::string>(), "uHello", "aHi", "u <|im_end|> "}));
  for (auto const& format : chat_formats::all) out.add(joined({"t", std::string(format.text), "sNo", "uHello"}));
}

// A template may make texts of up to jinja::limits::output bytes from a few characters, in a string that doubles.
registered const here{
    {.name = "chat", .run = run, .corpus = corpus, .fixed_bytes = 2 * jinja::limits::output + (std::size_t{1} << 18)}};

}  // namespace
}  // namespace atmanrl_fuzz::chat_target
