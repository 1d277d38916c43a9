#include <atmanrl/text/tokenizer_json.hpp>

#include "catch.hpp"
#include "io/damage.hpp"
#include "io/scratch.hpp"
#include "text/vectors.hpp"

#include <functional>
#include <string>

using namespace atmanrl;
using namespace atmanrl_test;

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
      {"model.byte_fallback", [](json& j) { j["model"]["byte_fallback"] = true; }},
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
