#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/tokenizer_json.hpp>

#include "catch.hpp"
#include "io/damage.hpp"
#include "io/scratch.hpp"
#include "text/vectors.hpp"

#include <functional>
#include <string>

using namespace atmanrl;
using namespace atmanrl_test;

namespace tokenizer_json_test {
namespace {

json tiny(char const* name = "text/tiny_llama3.json") { return read_json_file(fixture(name)); }

}  // namespace

TEST_CASE("tokenizer.json: ids are those of Hugging Face tokenizers") {
  check_vectors(tokenizer::load(fixture("text/tiny_llama3.json")), "text/tiny_llama3_vectors.json", 200);
  check_vectors(tokenizer::load(fixture("text/tiny_smollm.json")), "text/tiny_smollm_vectors.json", 150);
}

TEST_CASE("tokenizer.json: ids of the Llama 3 tokenizer are those of Hugging Face tokenizers", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  tokenizer const t = tokenizer::load(*data / "tokenizers/llama3");
  CHECK(t.vocab_size() == 128256);
  CHECK(t.bos() == 128000);
  CHECK(t.eos() == 128009);
  CHECK(t.token_id("<|eot_id|>") == 128009);
  check_vectors(t, "text/llama3_vectors.json", 500);
  for (std::string const& text : random_texts(1000, 60)) CHECK(t.decode(t.encode(text)) == text);
}

TEST_CASE("tokenizer.json: the begin-of-text token comes from the post-processor, the end from tokenizer_config.json") {
  CHECK(read_tokenizer_json(fixture("text/tiny_llama3.json")).bos == 0);
  CHECK(read_tokenizer_json(fixture("text/tiny_smollm.json")).bos == -1);
  scratch_folder const folder;
  put(folder / "tokenizer.json", tiny().dump());
  CHECK(read_tokenizer_json(folder / "tokenizer.json").eos == -1);
  put(folder / "tokenizer_config.json", R"({"eos_token":{"content":"<|eot_id|>"},"chat_template":"in config"})");
  CHECK(read_tokenizer_json(folder / "tokenizer.json").eos == 5);
  CHECK(read_tokenizer_json(folder / "tokenizer.json").chat.text == "in config");
  put(folder / "chat_template.jinja", "in a file");
  CHECK(read_tokenizer_json(folder / "tokenizer.json").chat.text == "in a file");
  put(folder / "tokenizer_config.json", R"({"eos_token":"<none>"})");
  CHECK_THROWS_WITH(read_tokenizer_json(folder / "tokenizer.json"), ATMANRL_CONTAINS("<none>"));
}

TEST_CASE("tokenizer.json: begin-of-text stands in front where transformers' tokenizer class puts it") {
  json const rows = read_json_file(fixture("text/chat/begin_of_text.json"));
  CHECK(rows.size() == 54);
  json whole = read_json_file(fixture("text/chat/distill/tokenizer.json"));
  scratch_folder const folder, saved;
  for (json const& row : rows) {
    INFO(row.dump());
    whole["post_processor"] = row["post_processor"];
    put(folder / "tokenizer.json", whole.dump());
    put(folder / "tokenizer_config.json", row["tokenizer_config"].dump());
    tokenizer const t = tokenizer::load(folder.path());
    CHECK(encode_chat(t, {}, std::vector<chat_message>{{"user", "Hi"}}) == row["ids"].get<std::vector<int>>());
    t.save(saved.path());
    CHECK(tokenizer::load(saved.path()).bos() == t.bos());
  }
}

TEST_CASE("tokenizer.json: the token that a tokenizer class puts in front is the named one, the class's, or refused") {
  scratch_folder const folder;
  json whole = read_json_file(fixture("text/chat/distill/tokenizer.json"));
  put(folder / "tokenizer.json", whole.dump());
  auto const read = [&](char const* config) {
    put(folder / "tokenizer_config.json", config);
    return complaint([&] { read_tokenizer_json(folder / "tokenizer.json"); });
  };
  CHECK(contains(read(R"({"tokenizer_class":"LlamaTokenizer"})"), "tokenizer_config.json: bos_token \"<s>\" is not a"));
  CHECK(contains(read(R"({"tokenizer_class":"LlamaTokenizer","bos_token":null})"), "bos_token is not a text"));
  CHECK(contains(read(R"({"tokenizer_class":"LlamaTokenizer","add_bos_token":1})"), "add_bos_token is not true or"));
  CHECK(contains(read(R"({"tokenizer_class":3})"), "tokenizer_class is not a text"));
  CHECK_FALSE(read(R"({"tokenizer_class":"LlamaTokenizer","add_bos_token":false})"));
  whole["added_tokens"][0]["content"] = "<s>";
  put(folder / "tokenizer.json", whole.dump());
  CHECK_FALSE(read(R"({"tokenizer_class":"LlamaTokenizer"})"));
  CHECK(read_tokenizer_json(folder / "tokenizer.json").bos == 259);
  using named = std::pair<std::string, std::string>;
  CHECK(read_tokenizer_json(folder / "tokenizer.json").chat.tokens == std::vector<named>{{"bos_token", "<s>"}});
  // special_tokens_map.json names it where tokenizer_config.json does not.
  put(folder / "special_tokens_map.json", R"({"bos_token":"<|eot_id|>"})");
  CHECK(read_tokenizer_json(folder / "tokenizer.json").bos == 263);
}

TEST_CASE(
    "tokenizer.json: NFC, empty matches, added letters and tokens of tokenizer_config.json give the ids of Hugging "
    "Face") {
  json const rows = read_json_file(fixture("text/cases/vectors.json"));
  CHECK(rows.size() == 25);
  for (json const& row : rows) {
    INFO(row.dump());
    tokenizer const t = tokenizer::load(fixture(("text/cases/" + row["tokenizer"].get<std::string>()).c_str()));
    CHECK(t.encode_with_specials(row["text"].get<std::string>()) == row["ids"].get<std::vector<int>>());
    // And after it has been written and read again.
    scratch_folder const folder;
    t.save(folder.path());
    CHECK(tokenizer::load(folder.path()).encode_with_specials(row["text"].get<std::string>()) ==
          row["ids"].get<std::vector<int>>());
  }
}

TEST_CASE("tokenizer.json: an added letter at the id of a byte is found as the letter and decoded to the byte") {
  tokenizer const t = tokenizer::load(fixture("text/cases/added_byte_letter.json"));
  CHECK(t.token_id("\xc3\xa9") == 233);
  CHECK(t.token_bytes(233) == "\xe9");
  CHECK(t.decode(t.encode("\xe9\xbf\xbf")) == "\xe9\xbf\xbf");  // U+9FFF
  for (int byte = 0; byte < 256; ++byte) CHECK(t.encode(std::string(1, char(byte))) == std::vector{byte});
}

TEST_CASE("tokenizer.json: rows of a model after the last token have none") {
  tokenizer const t = tokenizer::load(fixture("text/cases/padded_vocab"));
  CHECK(t.vocab_size() == 261);
  CHECK(has_token(t, 260));
  for (int const id : {261, 300, 319}) CHECK_FALSE(has_token(t, id));
  CHECK(t.decode(std::vector{65, 300, 319, 66}) == "AB");
}

TEST_CASE("tokenizer.json: tokens that tokenizer_config.json alone lists get the ids that it says, or are refused") {
  tokenizer const t = tokenizer::load(fixture("text/cases/tokens_only_in_tokenizer_config"));
  CHECK(t.vocab_size() == 262);
  CHECK(t.eos() == 259);
  CHECK(t.is_special(261));
  CHECK_FALSE(t.is_special(260));
  CHECK(t.decode(std::vector{260, 261}) == "<tool><|im_end|>");
  scratch_folder const folder;
  put(folder / "tokenizer.json", read_text_file(fixture("text/cases/tokens_only_in_tokenizer_config/tokenizer.json")));
  auto const read = [&](char const* config) {
    put(folder / "tokenizer_config.json", config);
    return complaint([&] { read_tokenizer_json(folder / "tokenizer.json"); });
  };
  for (auto const& [config, sentence] : {
           std::pair{R"({"added_tokens_decoder":{"300":{"content":"<x>"}}})",
                     "tokenizer_config.json: added_tokens_decoder.300 is \"<x>\", which has or would get the id 260"},
           std::pair{R"({"added_tokens_decoder":{"260":{"content":"th"}}})", "would get the id 256"},
           std::pair{R"({"added_tokens_decoder":{"260":{"content":"<x>","lstrip":true}}})", "lstrip"},
           std::pair{R"({"added_tokens_decoder":{"260":{}}})", "added_tokens_decoder.260.content is missing"},
           std::pair{R"({"added_tokens_decoder":{"2x":{"content":"<x>"}}})", "\"2x\" in place of a token id"},
           std::pair{R"({"added_tokens_decoder":[1]})", "is not an object"},
       }) {
    INFO(config);
    CHECK(contains(read(config), sentence));
  }
  CHECK_FALSE(read(R"({"added_tokens_decoder":{"259":{"content":"<|endoftext|>","special":true}}})"));
}

TEST_CASE("tokenizer.json: a token that is named as the end of a text is special") {
  scratch_folder const folder;
  json j = read_json_file(fixture("text/cases/tokens_only_in_tokenizer_config/tokenizer.json"));
  j["added_tokens"][0]["special"] = false;
  put(folder / "tokenizer.json", j.dump());
  for (auto const& [name, id] : {std::pair{"<|endoftext|>", 259}, std::pair{"####", 258}}) {
    put(folder / "tokenizer_config.json", json{{"eos_token", name}}.dump());
    tokenizer const t = tokenizer::load(folder.path());
    CHECK(t.eos() == id);
    CHECK(t.is_special(id));
  }
}

TEST_CASE("tokenizer.json: an added token may not take the id of another one") {
  json j = tiny();
  j["added_tokens"][0]["id"] = j["model"]["vocab"]["a"];
  scratch_folder const folder;
  put(folder / "tokenizer.json", j.dump());
  CHECK(contains(complaint([&] { read_tokenizer_json(folder / "tokenizer.json"); }),
                 "added_tokens[0].id is " + j["model"]["vocab"]["a"].dump() + ", which another token has"));
}

TEST_CASE("tokenizer.json: a split pattern that takes too many steps names file and field") {
  json j = tiny();
  j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(?=(?:a|a)*c)a|x";
  scratch_folder const folder;
  put(folder / "tokenizer.json", j.dump());
  tokenizer const t = tokenizer::load(folder.path());
  auto const text = complaint([&] { t.encode(std::string(60, 'a')); });
  CHECK(contains(text, (folder / "tokenizer.json").string() + ": pre_tokenizer: the split pattern cannot be matched"));
}

TEST_CASE("tokenizer.json: merges may be texts or pairs") {
  json j = tiny("text/tiny_smollm.json");
  scratch_folder const folder;
  for (bool const as_pairs : {false, true}) {
    for (auto& merge : j["model"]["merges"]) {
      std::string left, right;
      if (merge.is_string()) {
        auto const text = merge.get<std::string>();
        left = text.substr(0, text.find(' ')), right = text.substr(text.find(' ') + 1);
      } else {
        left = merge[0], right = merge[1];
      }
      if (as_pairs)
        merge = json::array({left, right});
      else
        merge = left + ' ' + right;
    }
    put(folder / "tokenizer.json", j.dump());
    check_vectors(tokenizer::load(folder / "tokenizer.json"), "text/tiny_smollm_vectors.json", 150);
  }
}

TEST_CASE("tokenizer.json: ignore_merges is obeyed") {
  json j = tiny();
  int const word = j["model"]["vocab"]
                    ["\xc4\xa0"
                     "apples"];
  j["model"]["merges"] = json::array();
  scratch_folder const folder;
  for (bool const whole : {true, false}) {
    j["model"]["ignore_merges"] = whole;
    put(folder / "tokenizer.json", j.dump());
    auto const ids = tokenizer::load(folder / "tokenizer.json").encode(" apples");
    if (whole) {
      CHECK(ids == std::vector{word});
    } else {
      CHECK(ids.size() == 7);
    }
  }
}

TEST_CASE("tokenizer.json: what is written reads back to the same ids") {
  scratch_folder const folder;
  for (std::string const name : {"tiny_llama3", "tiny_smollm"}) {
    tokenizer const t = tokenizer::load(fixture(("text/" + name + ".json").c_str()));
    t.save(folder.path());
    tokenizer const again = tokenizer::load(folder.path());
    CHECK(again.bos() == t.bos());
    CHECK(again.vocab_size() == t.vocab_size());
    for (int id = 0; id < t.vocab_size(); ++id) {
      CHECK(again.token_bytes(id) == t.token_bytes(id));
      CHECK(again.is_special(id) == t.is_special(id));
    }
    check_vectors(again, ("text/" + name + "_vectors.json").c_str(), 150);
  }
}

TEST_CASE("tokenizer.json: parts that are not implemented are refused by name") {
  struct change {
    char const* field;
    std::function<void(json&)> apply;
  };
  auto const split = [](json& j) -> json& { return j["pre_tokenizer"]["pretokenizers"][0]; };
  change const changes[] = {
      {"model.type", [](json& j) { j["model"]["type"] = "WordPiece"; }},
      {"model.byte_fallback is set: it is a SentencePiece tokenizer, but only byte-level BPE",
       [](json& j) { j["model"]["byte_fallback"] = true; }},
      {"model.dropout", [](json& j) { j["model"]["dropout"] = 0.1; }},
      {"model.end_of_word_suffix", [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }},
      {"normalizer.type",
       [](json& j) {
         j["normalizer"] = {{"type", "Lowercase"}};
       }},
      {"pre_tokenizer.behavior", [&](json& j) { split(j)["behavior"] = "Removed"; }},
      {"pre_tokenizer.pattern",
       [&](json& j) {
         split(j)["pattern"] = {{"String", " "}};
       }},
      {"pre_tokenizer.type",
       [&](json& j) {
         split(j) = {{"type", "Whitespace"}};
       }},
      {"pre_tokenizer.add_prefix_space",
       [](json& j) {
         j["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
       }},
      {"pre_tokenizer", [&](json& j) { j["pre_tokenizer"] = json(split(j)); }},
      {"pre_tokenizer", [](json& j) { j["pre_tokenizer"] = nullptr; }},
      {"post_processor.type",
       [](json& j) {
         j["post_processor"] = {{"type", "RobertaProcessing"}};
       }},
      {"added_tokens[0].lstrip", [](json& j) { j["added_tokens"][0]["lstrip"] = true; }},
      {"added_tokens[1].single_word", [](json& j) { j["added_tokens"][1]["single_word"] = true; }},
  };
  scratch_folder const folder;
  for (auto const& change : changes) {
    json j = tiny();
    change.apply(j);
    auto const path = folder / "tokenizer.json";
    put(path, j.dump());
    auto const text = complaint([&] { read_tokenizer_json(path); });
    INFO(change.field << " | " << text.value_or("(accepted)"));
    CHECK(contains(text, path.string()));
    CHECK(contains(text, change.field));
  }
}

TEST_CASE("tokenizer.json: corrupt files give one sentence that names the file and the field") {
  struct change {
    char const* field;
    std::function<void(json&)> apply;
  };
  change const changes[] = {
      {"model", [](json& j) { j.erase("model"); }},
      {"model.vocab", [](json& j) { j["model"].erase("vocab"); }},
      {"model.vocab", [](json& j) { j["model"]["vocab"] = json::array(); }},
      {"model.vocab", [](json& j) { j["model"]["vocab"]["a"] = -1; }},
      {"model.vocab", [](json& j) { j["model"]["vocab"]["a"] = "7"; }},
      {"model.vocab", [](json& j) { j["model"]["vocab"]["a"] = 2'000'000'000; }},
      {"model.vocab", [](json& j) { j["model"]["vocab"]["a"] = 1e300; }},
      {"model.vocab", [](json& j) { j["model"]["vocab"]["a"] = 60'000; }},
      {"model.vocab", [](json& j) { j["model"]["vocab"]["a"] = j["model"]["vocab"]["b"]; }},
      {"model.merges", [](json& j) { j["model"]["merges"] = "none"; }},
      {"model.merges[3]", [](json& j) { j["model"]["merges"][3] = "one"; }},
      {"model.merges[3]",
       [](json& j) {
         j["model"]["merges"][3] = {"a", 1};
       }},
      {"model.merges[3]", [](json& j) { j["model"]["merges"][3] = "zqx a"; }},
      {"added_tokens", [](json& j) { j["added_tokens"] = "x"; }},
      {"added_tokens[0].id", [](json& j) { j["added_tokens"][0]["id"] = 2'000'000'000; }},
      {"added_tokens[0].content", [](json& j) { j["added_tokens"][0].erase("content"); }},
      {"added_tokens[0].special", [](json& j) { j["added_tokens"][0]["special"] = "yes"; }},
      {"pre_tokenizer.pretokenizers", [](json& j) { j["pre_tokenizer"]["pretokenizers"] = 3; }},
      {"split pattern", [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a"; }},
      {"post_processor", [](json& j) { j["post_processor"]["special_tokens"] = json::object(); }},
      {"begin-of-text", [](json& j) { j["post_processor"]["special_tokens"]["<|begin_of_text|>"]["ids"] = {9999}; }},
  };
  scratch_folder const folder;
  auto const path = folder / "tokenizer.json";
  for (auto const& change : changes) {
    json j = tiny();
    change.apply(j);
    put(path, j.dump());
    auto const text = complaint([&] { tokenizer::load(path); });
    INFO(change.field << " | " << text.value_or("(accepted)"));
    CHECK(contains(text, path.string()));
    CHECK(contains(text, change.field));
  }
  auto const open = [](std::filesystem::path const& p) { tokenizer::load(p); };
  std::string const whole = tiny().dump();
  for (std::size_t n = 0; n < whole.size(); n += 97) check_refused(path, whole.substr(0, n), open);
  for (char const* const bytes : {"[]", "1", "null", "\xff\xfe"}) check_refused(path, bytes, open);
}

TEST_CASE("tokenizer.json: random damage is an error that names the file, or an intact reading") {
  scratch_folder const folder;
  check_random_damage(folder / "tokenizer.json", tiny("text/tiny_smollm.json").dump(),
                      [](std::filesystem::path const& p) {
                        tokenizer const t = tokenizer::load(p);
                        for (int id = 0; id < t.vocab_size(); ++id) t.token_bytes(id);
                      });
}

}  // namespace tokenizer_json_test
