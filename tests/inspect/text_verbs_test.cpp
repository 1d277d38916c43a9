#include <atmanrl/text/utf8.hpp>

#include "program.hpp"

using namespace atmanrl_test;
namespace text_verbs_test {

using atmanrl::json;

namespace {

std::string tiny(char const* name) { return fixture("text") / name; }

std::string hex_of(std::string_view bytes) {
  std::string out;
  for (char const c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

/// \param format  of --chat-format; empty: the model's own
void check_chats(std::string const& model, std::string const& format, json const& chats) {
  int checked = 0;
  for (json const& c : chats) {
    json const& m = c["messages"];
    bool const system = m.size() == 2 && m[0][0] == "system" && m[1][0] == "user";
    if (!c["generate"].get<bool>() || !(system || (m.size() == 1 && m[0][0] == "user"))) continue;
    std::vector<std::string> call{"chat", "--model", model, "--user", m.back()[1]};
    if (system) call.insert(call.end(), {"--system", m[0][1]});
    if (!format.empty()) call.insert(call.end(), {"--chat-format", format});
    CHECK(inspect_json(call) == c["ids"]);
    ++checked;
  }
  CHECK(checked >= 2);
}

}  // namespace

TEST_CASE("inspect tokenize: the bytes of standard input become the known ids, and detokenize gives them back") {
  std::string const kind = GENERATE("tiny_llama3", "tiny_smollm");
  std::string const model = tiny((kind + ".json").c_str());
  int checked = 0;
  for (json const& v : json_fixture("text/" + kind + "_vectors.json")) {
    auto const text = v["text"].get<std::string>();
    bool const special = v.value("special", false);
    // A process for each of the hundreds of vectors would take long: the tokenizer has its own tests.
    if (!special && checked > 40) continue;
    ++checked;
    std::vector<std::string> call{"tokenize", "--model", model};
    if (special) call.push_back("--special");
    CHECK(inspect_json(call, text) == v["ids"]);
    if (v["ids"].empty()) continue;
    auto const back = inspect_json({"detokenize", "--model", model, "--ids", comma_separated(v["ids"])});
    CHECK(back["text"] == text);
    CHECK(back["bytes"] == hex_of(text));
  }
  CHECK(checked > 40);
}

TEST_CASE(
    "inspect tokenize: special tokens are text without --special; nothing is put in front and no line end is lost") {
  std::string const model = tiny("tiny_llama3.json"), text = "a<|eot_id|>\n";
  auto const plain = inspect_json({"tokenize", "--model", model}, text),
             special = inspect_json({"tokenize", "--model", model, "--special"}, text);
  CHECK(plain.size() > special.size());
  CHECK(special.size() == 3);
  for (json const& ids : {plain, special})
    CHECK(inspect_json({"detokenize", "--model", model, "--ids", comma_separated(ids)})["text"] == text);
  CHECK(inspect_json({"tokenize", "--tokenizer", model}, text) == plain);
  CHECK(inspect_json({"tokenize", "--model", model}, "") == json::array());
}

TEST_CASE("inspect detokenize: half a character is U+FFFD in the text and itself in the bytes") {
  std::string const model = tiny("tiny_llama3.json");
  auto const ids =
      inspect_json({"tokenize", "--model", model}, "\xe2\x82\xac");  // one token per byte in a vocabulary this small
  REQUIRE(ids.size() == 3);
  auto const half =
      inspect_json({"detokenize", "--model", model, "--ids", comma_separated(std::vector<int>{ids[0], ids[1]})});
  CHECK(half["bytes"] == "e282");
  CHECK(half["text"] == "\xef\xbf\xbd");
}

TEST_CASE("inspect chat: the ids are those of the models' templates") {
  for (std::string const name : {"chatml", "llama30", "distill"})
    check_chats(fixture("text/chat") / name, "", json_fixture("text/chat/" + name + "_chats.json"));
  check_chats(tiny("tiny_llama3.json"), "llama3.1", json_fixture("text/tiny_llama3_chats.json"));
}

TEST_CASE("inspect chat: a vocabulary without a template gets plain text, and a format that it lacks is refused") {
  std::string const base = fixture("text/chat/base"), llama3 = tiny("tiny_llama3.json");
  CHECK(inspect_json({"chat", "--model", base, "--user", "Hi"}) == inspect_json({"tokenize", "--model", base}, "Hi"));
  CHECK(inspect_json({"chat", "--model", base, "--user", "Hi", "--chat", "plain"}) ==
        inspect_json({"chat", "--model", base, "--user", "Hi"}));
  auto const marked = inspect_json({"chat", "--model", base, "--user", "Hi", "--chat", "chatml"});
  CHECK(inspect_json({"detokenize", "--model", base, "--ids", comma_separated(marked)})["text"] ==
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  CHECK_THAT(inspect_complaint({"chat", "--model", base, "--user", "Hi", "--chat", "llama3"}),
             ATMANRL_CONTAINS("--chat llama3 needs the token <|start_header_id|>"));
  CHECK_THAT(inspect_complaint({"chat", "--model", base, "--user", "Hi", "--thinking", "off"}),
             ATMANRL_CONTAINS("--thinking is off"));
  auto const dated =
      inspect_json({"chat", "--model", llama3, "--user", "Hi", "--chat", "llama3.1", "--chat-date", "2025-01-31"});
  CHECK_THAT(
      inspect_json({"detokenize", "--model", llama3, "--ids", comma_separated(dated)})["text"].get<std::string>(),
      ATMANRL_CONTAINS("Today Date: 31 Jan 2025"));
}

TEST_CASE("inspect chat: the Llama 3 tokenizer and template, begin-of-text exactly once", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  check_chats(*data / "tokenizers/llama3", "", json_fixture("text/chat/llama3_chats.json"));
  check_chats(*data / "tokenizers/llama3", "llama3.1", json_fixture("text/llama3_chats.json"));
}

TEST_CASE("inspect generate: text is what detokenize makes of the new ids") {
  std::string const tokenizer = tiny("tiny_llama3.json");
  auto const got = inspect_json({"generate", "--model", model_fixture("tied"), "--ids", "70,71", "--max-new-tokens",
                                 "12", "--temperature", "2", "--tokenizer", tokenizer});
  auto const text = inspect_json({"detokenize", "--model", tokenizer, "--ids", comma_separated(got["ids"])});
  CHECK(got["text"] == text["text"]);
}

TEST_CASE("inspect answer: numbers and letters are found after the delimiter, and elsewhere if need be") {
  std::string const lines =
      "{\"completion\": \"3 + 4 = 7\\n#### [7]\", \"truth\": \"7.0\"}\n"
      "{\"completion\": \"It costs $1,234.00.\", \"truth\": \"so #### 1234\"}\n"
      "\n"
      "{\"completion\": \"I do not know\", \"truth\": 5}";
  auto const got = inspect_lines({"answer", "--task", "gsm8k"}, lines);
  REQUIRE(got.size() == 3);
  CHECK(got[0] ==
        json{{"extracted", "7"}, {"extracted_flexible", "7"}, {"correct_strict", true}, {"correct_flexible", true}});
  CHECK(got[1] == json{{"extracted", nullptr},
                       {"extracted_flexible", "1234"},
                       {"correct_strict", false},
                       {"correct_flexible", true}});
  CHECK(got[2] == json{{"extracted", nullptr},
                       {"extracted_flexible", nullptr},
                       {"correct_strict", false},
                       {"correct_flexible", false}});

  auto const letters =
      inspect_lines({"answer", "--task", "mmlu"},
                    "{\"completion\":\"#### (B)\",\"truth\":\"B\"}\n{\"completion\":\"The answer is C.\",\"truth\":2}\n"
                    "{\"completion\":\"#### A\",\"truth\":\"d\"}\n");
  REQUIRE(letters.size() == 3);
  CHECK(letters[0] ==
        json{{"extracted", "B"}, {"extracted_flexible", "B"}, {"correct_strict", true}, {"correct_flexible", true}});
  CHECK(
      letters[1] ==
      json{{"extracted", nullptr}, {"extracted_flexible", "C"}, {"correct_strict", false}, {"correct_flexible", true}});
  CHECK(letters[2] ==
        json{{"extracted", "A"}, {"extracted_flexible", "A"}, {"correct_strict", false}, {"correct_flexible", false}});
}

}  // namespace text_verbs_test
