#include <atmanrl/io/safetensors.hpp>

#include <cstring>
#include <limits>

#include "program.hpp"

using namespace atmanrl_test;
namespace bad_input_test {

using atmanrl::json;

namespace {

std::string const& model() {
  static std::string const path = model_fixture("tied");
  return path;
}

bool says(std::string const& complaint, std::string_view part) {
  CAPTURE(complaint, part);
  bool const found = complaint.find(part) != std::string::npos;
  CHECK(found);
  return found;
}

/// The calls that need a model, sound but for the model's path.
std::vector<std::vector<std::string>> calls_on(std::string const& path, std::string const& out) {
  return {{"logprobs", "--model", path, "--ids", "1,2,3"},
          {"generate", "--model", path, "--ids", "1,2", "--max-new-tokens", "3"},
          {"gradient", "--model", path, "--ids", "1,2,3", "--out", out},
          {"mask", "--model", path, "--prompt-ids", "1,2", "--cot-ids", "3,4", "--delimiter-ids", "5", "--answer-ids",
           "6", "--steps", "2"},
          {"grpo", "--out", out}};
}
std::string grpo_on(std::string const& path) {
  json const completion{{"ids", {4}}, {"logprobs", {-1}}, {"reward", 0}},
      other{{"ids", {5}}, {"logprobs", {-2}}, {"reward", 1}};
  return json{{"model", path}, {"groups", {{{"prompt_ids", {1, 2}}, {"completions", {completion, other}}}}}}.dump();
}

void copy_model(std::filesystem::path const& to) {
  std::filesystem::copy(model(), to, std::filesystem::copy_options::recursive);
}

}  // namespace

TEST_CASE("inspect: every verb refuses a model that is missing or damaged with one line that names the file") {
  scratch_folder const folder;
  std::string const out = folder / "gradient.safetensors";
  auto const refused = [&](std::string const& path, std::string_view part) {
    for (auto const& call : calls_on(path, out)) says(inspect_complaint(call, grpo_on(path)), part);
    CHECK(!std::filesystem::exists(out));
  };
  refused(folder / "nothing", "nothing: there is no such file or folder");
  std::filesystem::create_directory(folder / "empty");
  refused(folder / "empty", "empty/config.json");
  copy_model(folder / "cut");
  std::filesystem::resize_file(folder / "cut/model.safetensors", 5000);
  refused(folder / "cut", "cut/model.safetensors");
  copy_model(folder / "config");
  put(folder / "config/config.json", "{\"model_type\":");
  refused(folder / "config", "config/config.json: not valid JSON");
  put(folder / "noise.gguf", "this is no model at all");
  refused(folder / "noise.gguf", "noise.gguf");
  put(folder / "noise.bin", "this is no model at all, whatever it is called");
  refused(folder / "noise.bin", "noise.bin");
}

TEST_CASE("inspect: a model with a NaN in it prints nothing and writes nothing") {
  scratch_folder const folder;
  copy_model(folder / "nan");
  std::string const weights = folder / "nan/model.safetensors", out = folder / "gradient.safetensors";
  std::string bytes = atmanrl::read_text_file(weights);
  {
    atmanrl::safetensors_file const file(weights);
    auto const* const gain = file.find("model.norm.weight");
    REQUIRE(gain != nullptr);
    float const nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(bytes.data() + (gain->bytes.data() - file.storage()->bytes().data()), &nan, sizeof nan);
  }
  put(weights, bytes);
  std::string const path = folder / "nan";
  std::string const backend = GENERATE("cpu", "reference");
  for (auto call : calls_on(path, out)) {
    call.insert(call.end(), {"--backend", backend});
    inspect_complaint(call, grpo_on(path));
  }
  for (auto const& left : std::filesystem::directory_iterator(folder.path())) CHECK(left.path().filename() == "nan");
}

TEST_CASE("inspect: ids that are no ids, lie outside the vocabulary or are missing are named with their option") {
  struct {
    char const* ids;
    char const* part;
  } const wrong[]{
      {"", "--ids: there are no ids"},     {" ", "--ids: there are no ids"},
      {"1,,2", "--ids: item 2 is \"\""},   {"1,2,", "--ids: item 3 is \"\""},
      {"1,x", "--ids: item 2 is \"x\""},   {"1.5", "--ids: item 1 is \"1.5\""},
      {"-1,2", "--ids: item 1 is \"-1\""}, {"99999999999", "\"99999999999\""},
      {"nan", "--ids: item 1 is \"nan\""}, {"1,97", "--ids: item 2 is id 97, but the vocabulary has 97 tokens"}};
  scratch_folder const folder;
  std::string const out = folder / "out";
  for (auto const& w : wrong) {
    says(inspect_complaint({"logprobs", "--model", model(), "--ids", w.ids}), w.part);
    says(inspect_complaint({"generate", "--model", model(), "--ids", w.ids, "--max-new-tokens", "2"}), w.part);
    says(inspect_complaint({"gradient", "--model", model(), "--ids", w.ids, "--out", out}), w.part);
  }
  CHECK(!std::filesystem::exists(out));
  for (char const* const option : {"--prompt-ids", "--cot-ids", "--delimiter-ids", "--answer-ids"}) {
    std::vector<std::string> call{"mask", "--model", model(), "--steps", "1"};
    for (char const* const each : {"--prompt-ids", "--cot-ids", "--delimiter-ids", "--answer-ids"})
      call.insert(call.end(), {each, each == option ? "1,97" : "1,2"});
    says(inspect_complaint(call), std::string(option) + ": item 2 is id 97");
    *(std::find(call.begin(), call.end(), option) + 1) = "";
    says(inspect_complaint(call), std::string(option) + ": there are no ids");
  }
  says(inspect_complaint({"detokenize", "--model", fixture("text") / "tiny_llama3.json", "--ids", "1,100000"}),
       "--ids: item 2 is id 100000");
  says(inspect_complaint({"gradient", "--model", model(), "--ids", "5", "--out", out}), "one id has no next token");
}

TEST_CASE("inspect: a sequence beyond the model's limit is refused, one up to the limit is not") {
  std::vector<int> const full(256, 7), more(257, 7);
  CHECK(inspect_json({"logprobs", "--model", model(), "--ids", comma_separated(full)})["logprobs"].size() == 255);
  says(inspect_complaint({"logprobs", "--model", model(), "--ids", comma_separated(more)}),
       "257 tokens is too long: the model's limit is 256");
  says(inspect_complaint({"generate", "--model", model(), "--ids", comma_separated(full), "--max-new-tokens", "1"}),
       "leaves no room");
  says(inspect_complaint({"mask", "--model", model(), "--prompt-ids", comma_separated(full), "--cot-ids", "1",
                          "--delimiter-ids", "2", "--answer-ids", "3"}),
       "259 tokens is too long");
  auto request = json::parse(grpo_on(model()));
  request["groups"][0]["prompt_ids"] = full;
  says(inspect_complaint({"grpo"}, request.dump()),
       "groups[0]: completions[0]: ids: a sequence of 257 tokens is too long");
  auto const last = inspect_json(
      {"generate", "--model", model(), "--ids", comma_separated(std::vector<int>(250, 7)), "--max-new-tokens", "100"});
  CHECK(last["ids"].size() <= 6);
}

TEST_CASE("inspect: wrong options are named") {
  auto const logprobs = [](std::vector<std::string> more) {
    more.insert(more.begin(), {"logprobs", "--model", model(), "--ids", "1,2"});
    return inspect_complaint(more);
  };
  says(logprobs({"--backend", "gpu"}), "--backend: gpu");
  says(logprobs({"--dtype", "f16"}), "--dtype: f16");
  says(logprobs({"--threads", "-1"}), "--threads");
  says(logprobs({"--threads", "two"}), "--threads");
  says(logprobs({"--nonsense"}), "--nonsense");
  says(logprobs({"--ids", "3"}), "--ids");
  says(inspect_complaint({"logprobs", "--model", model()}), "--ids is required");
  says(inspect_complaint({"logprobs", "--ids", "1"}), "--model is required");
  says(inspect_complaint({}), "there are tokenize, detokenize");
  says(inspect_complaint({"logprob"}), "\"logprob\" is not a verb");
  for (char const* const verb : {"tokenize", "detokenize", "chat", "answer"})
    says(inspect_complaint({verb, "--model", "x", "--ids", "1", "--user", "x", "--task", "gsm8k", "--backend", "gpu"}),
         "--backend: gpu");

  auto const generate = [](std::vector<std::string> more) {
    more.insert(more.begin(), {"generate", "--model", model(), "--max-new-tokens", "3"});
    return inspect_complaint(more);
  };
  says(generate({}), "exactly one of --ids, --prompt and --chat");
  says(generate({"--ids", "1", "--prompt", "x"}), "exactly one of");
  says(generate({"--prompt", "x"}), "there is no tokenizer.json");
  says(generate({"--ids", "1", "--temperature", "nan"}), "--temperature is nan");
  says(generate({"--ids", "1", "--temperature", "-1"}), "--temperature is -1");
  says(generate({"--ids", "1", "--temperature", "1e-40"}), "--temperature is 1e-40");
  says(generate({"--ids", "1", "--top-p", "0"}), "--top-p is 0");
  says(generate({"--ids", "1", "--top-k", "-1"}), "--top-k is -1");
  says(generate({"--ids", "1", "--seed", "-1"}), "--seed is \"-1\"");
  says(generate({"--ids", "1", "--seed", "18446744073709551616"}), "--seed");
  says(inspect_complaint({"generate", "--model", model(), "--ids", "1", "--max-new-tokens", "0"}),
       "--max-new-tokens is 0");

  auto const mask = [](std::vector<std::string> more) {
    more.insert(more.begin(), {"mask", "--model", model(), "--prompt-ids", "1", "--cot-ids", "2", "--delimiter-ids",
                               "3", "--answer-ids", "4"});
    return inspect_complaint(more);
  };
  for (char const* const option : {"--lr", "--eps", "--init", "--scale", "--sparsity"})
    for (char const* const value : {"nan", "inf"}) says(mask({option, value}), std::string(option) + " is " + value);
  says(mask({"--steps", "-1"}), "--steps is -1");
  says(mask({"--lr", "0"}), "--lr is 0");
  says(mask({"--eps", "0"}), "--eps is 0");
  says(mask({"--init", "0.1"}), "--init is 0.1");
  says(mask({"--init", "0"}), "--init is 0");
  says(mask({"--scale", "0"}), "--scale is 0");
  says(mask({"--sparsity", "-1"}), "--sparsity is -1");
  says(mask({"--shape", "row"}), "--shape: row");
  says(mask({"--rows", "all"}), "--rows: all");
  says(mask({"--objective", "kl"}), "--objective: kl");
  says(mask({"--sharing", "none"}), "--sharing: none");
  says(mask({"--reduction", "max"}), "--reduction: max");
}

TEST_CASE("inspect: a gradient that cannot be written is refused before anything is computed or written") {
  scratch_folder const folder;
  std::string const nowhere = folder / "missing/gradient.safetensors";
  says(inspect_complaint({"gradient", "--model", model(), "--ids", "1,2", "--out", nowhere}),
       "there is no folder " + (folder / "missing").string());
  says(inspect_complaint({"gradient", "--model", model(), "--ids", "1,2", "--out", folder.path()}),
       "is there and not a regular file");
  says(inspect_complaint({"gradient", "--model", model(), "--ids", "1,2", "--out", (folder.path() / "").string()}),
       "is not a file's name");
  says(inspect_complaint({"grpo", "--out", nowhere}, grpo_on(model())), "there is no folder");
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE(
    "inspect grpo: a field that is wrong, unknown or missing is named with its place, names with those that exist") {
  auto const with = [](auto change) {
    auto request = json::parse(grpo_on(model()));
    change(request);
    return inspect_complaint({"grpo"}, request.dump());
  };
  auto const completion = [&](auto change) { return with([&](json& r) { change(r["groups"][0]["completions"][1]); }); };
  says(inspect_complaint({"grpo"}, ""), "standard input: not valid JSON");
  says(inspect_complaint({"grpo"}, "{\"model\": NaN}"), "standard input: not valid JSON");
  says(inspect_complaint({"grpo"}, "[]"), "standard input is array, not an object");
  says(inspect_complaint({"grpo"}, std::string(100000, '[')), "nested deeper");
  says(with([](json& r) { r.erase("model"); }), "standard input: model is missing");
  says(with([](json& r) { r["groups"] = json::array(); }), "standard input: groups is empty");
  says(with([](json& r) { r["loss"] = "dappo"; }),
       "there is no loss \"dappo\"; there are grpo, bnpo, dr_grpo, dapo, gspo, cispo, two_sided");
  says(with([](json& r) { r["advantage"] = "mean"; }),
       "there is no advantage \"mean\"; there are mean_centered, group_normalized");
  says(with([](json& r) { r["advantage"] = "saliency_weighted"; }),
       "the advantage saliency_weighted is one of tokens, which takes more of rollouts than a request holds");
  says(with([](json& r) { r["cilp"] = 0.1; }),
       "the key \"cilp\" is unknown; there are model, groups, loss, advantage, clip");
  says(with([](json& r) { r["clip"] = -1; }), "clip");
  says(with([](json& r) { r["temperature"] = 0; }), "temperature is 0");
  says(with([](json& r) { r["temperature"] = 1e-40; }), "temperature is 1e-40");
  says(with([](json& r) { r["micro_batch"] = 1.5; }), "micro_batch is 1.5");
  says(with([](json& r) { r["groups"][0]["prompt_ids"] = json::array(); }), "groups[0]: prompt_ids is empty");
  says(with([](json& r) { r["groups"][0]["prompt_ids"][1] = 97; }), "groups[0]: prompt_ids: item 2 is id 97");
  says(with([](json& r) { r["groups"][0]["completions"].erase(0); }),
       "groups[0]: a group needs at least 2 completions");
  says(completion([](json& c) { c["ids"] = {1, 2}; }), "groups[0]: completions[1]: 2 ids but 1 logprobs");
  says(completion([](json& c) { c["ids"] = {-1}; }), "completions[1]: ids[0] is -1, not a token id");
  says(completion([](json& c) { c["ids"] = {1e10}; }), "not a token id");
  says(completion([](json& c) { c["ids"] = {500}; }), "completions[1]: ids: item 1 is id 500");
  says(completion([](json& c) { c["logprobs"] = {nullptr}; }), "completions[1]: logprobs[0] is null, not a number");
  says(completion([](json& c) { c["logprobs"] = {1e300}; }), "logprobs[0]");
  says(completion([](json& c) { c["reward"] = "good"; }), "completions[1]: reward is \"good\", not a number");
  says(completion([](json& c) { c.erase("reward"); }), "completions[1]: reward is missing");
  says(completion([](json& c) { c["rewards"] = 1; }),
       "the key \"rewards\" is unknown; there are ids, logprobs, reward");
  // A ratio that overflows is no JSON number either.
  completion([](json& c) { c["logprobs"] = {-1e30}; });
}

TEST_CASE("inspect answer: a line that is wrong is named, and no line is printed") {
  std::string const good = "{\"completion\":\"#### 1\",\"truth\":\"1\"}\n";
  auto const wrong = [&](std::string const& line) {
    return inspect_complaint({"answer", "--task", "gsm8k"}, good + line);
  };
  says(wrong("broken"), "standard input:2: not valid JSON");
  says(wrong("[1]"), "standard input:2: an object");
  says(wrong("{\"truth\":1}"), "standard input:2: completion is missing");
  says(wrong("{\"completion\":\"1\"}"), "standard input:2: truth is missing");
  says(wrong("{\"completion\":1,\"truth\":1}"), "standard input:2: completion is number");
  says(wrong("{\"completion\":\"1\",\"truth\":\"many\"}"), "standard input:2: truth is not a number");
  says(inspect_complaint({"answer", "--task", "mmlu"}, "{\"completion\":\"A\",\"truth\":\"E\"}"),
       "standard input:1: truth is not one of the letters");
  says(inspect_complaint({"answer", "--task", "gsm8k"}, "\n"), "there are no lines");
  says(inspect_complaint({"answer", "--task", "trivia"}, good), "--task: trivia");
}

TEST_CASE("inspect tokenize, detokenize, chat: a tokenizer that is missing or damaged is named") {
  scratch_folder const folder;
  put(folder / "tokenizer.json", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0");
  put(folder / "vocab.gguf", "GGUF");
  put(folder / "vocab.bin", "noise");
  for (std::string const& path :
       {std::string(folder / "tokenizer.json"), std::string(folder / "vocab.gguf"), std::string(folder / "vocab.bin"),
        folder.path().string(), std::string(folder / "none")}) {
    says(inspect_complaint({"tokenize", "--model", path}, "x"), path);
    says(inspect_complaint({"detokenize", "--model", path, "--ids", "0"}), path);
    says(inspect_complaint({"chat", "--model", path, "--user", "x"}), path);
  }
  says(inspect_complaint({"tokenize"}, "x"), "--model is missing");
  copy_model(folder / "model");
  std::filesystem::copy_file(folder / "tokenizer.json", folder / "model/tokenizer.json");
  says(inspect_complaint({"generate", "--model", folder / "model", "--prompt", "x", "--max-new-tokens", "2"}),
       "model/tokenizer.json");
  // Ids need none: what it is like is said, and the text is left out.
  outcome const ids = run_inspect({"generate", "--model", folder / "model", "--ids", "1", "--max-new-tokens", "2"});
  CHECK(ids.code == 0);
  CHECK(json::parse(ids.out)["text"] == nullptr);
  CHECK_THAT(ids.err, ATMANRL_CONTAINS("model/tokenizer.json") && ATMANRL_CONTAINS("text is null"));
  // One that was named is another matter.
  says(inspect_complaint({"generate", "--model", folder / "model", "--tokenizer", folder / "model", "--ids", "1",
                          "--max-new-tokens", "2"}),
       "model/tokenizer.json");
}

}  // namespace bad_input_test
