// The programs evaluate, explain, sft and mmlu_experiment: what they write, and one line with status 2 for bad input.
#include <atmanrl/io/jsonl.hpp>
#include <atmanrl/io/model_file.hpp>

#include "catch.hpp"
#include "quantised_model.hpp"
#include "run_setting.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace evaluate_program_test {
namespace {

struct setting {
  scratch_folder folder;
  std::string model = (folder / "model").string();
  setting() { write_random_model(folder / "model", random_config()); }
};

/// Runs a program of this build; nothing when it was not built.
std::optional<program_result> run(char const* name, std::string const& arguments) {
  auto const path = program(name);
  if (!path) {
    WARN("skipped: " << name << " was not built");
    return std::nullopt;
  }
  return run_command("ATMANRL_DATA_DIR=/nowhere '" + path->string() + "' " + arguments);
}

void fails_with(char const* name, std::string const& arguments, char const* sentence) {
  auto const r = run(name, arguments);
  if (!r) return;
  INFO(arguments << "\n" << r->output);
  CHECK(r->status == 2);
  CHECK(std::count(r->output.begin(), r->output.end(), '\n') == 1);
  CHECK(contains(r->output, sentence));
}

}  // namespace

TEST_CASE("evaluate: figures, completions and the difference to an earlier run") {
  setting const s;
  std::string const first = (s.folder / "a.json").string(), lines = (s.folder / "a.jsonl").string();
  std::string const common = "--model " + s.model + " --questions 3 --samples 2 --max-new-tokens 6 --threads 1";
  auto const one = run("evaluate", common + " --out " + first + " --completions " + lines);
  if (!one) return;
  INFO(one->output);
  CHECK(one->status == 0);
  CHECK(contains(one->output, "3 questions x 2 samples"));
  CHECK(contains(one->output, "filler sentences per chain"));
  auto const written = read_json_lines(lines);
  REQUIRE(written.size() == 3);
  CHECK(written[0]["samples"].size() == 2);
  CHECK(read_json_file(first)["per_question"]["id"].size() == 3);
  auto const two = run("evaluate", common + " --compare " + first);
  INFO(two->output);
  CHECK(two->status == 0);
  CHECK(contains(two->output, "+0.0 [+0.0, +0.0]"));
  CHECK_FALSE(contains(two->output, "products with bf16 weights"));
  auto const half = run("evaluate", common + " --dtype bf16 --bf16-products floats");
  INFO(half->output);
  CHECK(half->status == 0);
  CHECK(contains(half->output, "note: products with bf16 weights are computed in float (floats)"));
}

TEST_CASE("evaluate: the bundled model's answers follow its edited chains, on any generated task") {
  setting const s;
  std::string const out = (s.folder / "a.json").string(),
                    model = "'" + std::string(ATMANRL_FIXTURES) + "/../../examples/models/tiny'";
  for (char const* const task : {"arithmetic", "leaked_answer", "skipped_step", "memorised"}) {
    auto const r = run("evaluate", "--model " + model + " --task " + task +
                                       " --questions 8 --samples 1 --temperature 0 --edit-chains 6 --out " + out);
    if (!r) return;
    INFO(task << "\n" << r->output);
    REQUIRE(r->status == 0);
    CHECK(contains(r->output, "chains with edited number   6 of 6"));
    json const figures = read_json_file(out);
    CHECK(figures["edited_chains"]["chains"] == 6);
    CHECK(figures["edited_chains"]["follow"].get<double>() >= 0.8);
    CHECK(figures["edited_chains"]["stay_unedited"].get<double>() >= 0.8);
    CHECK(figures["per_question"]["id"].size() == 8);
  }
  auto const again =
      run("evaluate", "--model " + model + " --task memorised --questions 8 --samples 1 --compare " + out);
  INFO(again->output);
  CHECK(again->status == 0);  // a file with edited chains is one to compare with
}

TEST_CASE("explain: a completion is explained for its own answer, right or wrong") {
  setting const s;
  std::string const out = (s.folder / "a.json").string(),
                    model = "'" + std::string(ATMANRL_FIXTURES) + "/../../examples/models/tiny'";
  auto const r = run("explain", "--model " + model +
                                    " --items 12 --temperature 1.5 --seed 9 --estimators gradient --points 1"
                                    " --random-orders 1 --threads 1 --json " +
                                    out);
  if (!r) return;
  INFO(r->output);
  REQUIRE(r->status == 0);
  auto const trimmed = [](std::string x) {
    x.erase(0, x.find_first_not_of(" \n"));
    x.erase(x.find_last_not_of(" \n") + 1);
    return x;
  };
  int wrong = 0;
  json const figures = read_json_file(out);
  for (json const& item : figures["items"]) {
    INFO(item.dump());
    std::string const text = item["text"], answer = trimmed(item["answer"]);
    CHECK(answer == trimmed(text.substr(text.find("####") + 4)));
    wrong += item["correct"] == false;
    CHECK((item["correct"] == false || answer.starts_with(item["truth"].get<std::string>())));
  }
  CHECK(wrong > 0);
  CHECK(contains(r->output, "(wrong: the truth is "));
}

TEST_CASE("explain: a chain that is typed begins as completions of its prompt do, rows without a token are no tokens") {
  setting const s;
  model_config c = random_config();
  c.vocab = 261 + 64;
  c.bos_id = 258;
  c.stop_ids = {258};
  c.max_positions = 512;
  // Every row of the head is the same, and so is the probability of every token.
  row_source const rows = [](std::string_view, index_t, index_t, std::span<float> x) { std::ranges::fill(x, 0.1f); };
  hugging_face_options options{.type = dtype::f32};
  options.copy_files = tokenizer_files(fixture("text/chat/turn_end_base"));
  save_hugging_face_folder(s.folder / "chatty", c, standard_kind(c), rows, options);
  std::string const out = (s.folder / "a.json").string();
  auto const explained = [&](std::string const& format) {
    auto const r = run("explain", "--model " + (s.folder / "chatty").string() + " --chat " + format +
                                      " --question 1+1? --chain 1+1=2 --answer 2 --estimators gradient --points 1"
                                      " --random-orders 1 --threads 1 --json " +
                                      out);
    if (!r) return json();
    INFO(r->output);
    REQUIRE(r->status == 0);
    return json(read_json_file(out)["items"][0]);
  };
  json const plain = explained("plain");
  if (plain.is_null()) return;
  CHECK(plain["tokens"][0] == " ");
  CHECK(plain["answer"] == "2");
  CHECK(plain["correct"].is_null());
  CHECK(plain["truncation"]["whole"].get<double>() == Approx(1.0 / 261));
  CHECK(explained("chatml")["tokens"][0] == "1");
}

TEST_CASE("explain, ablation: items that a task does not have are no work that is lost") {
  setting const s;
  std::string const out = (s.folder / "a.json").string(),
                    model = "--model '" + std::string(ATMANRL_FIXTURES) + "/../../examples/models/tiny'";
  fails_with("explain", model + " --task memorised --item 5000",
             "--item 5000: memorised has the evaluation items 0 to");
  fails_with("ablation", model + " --first 1000000",
             "--first 1000000: arithmetic has the evaluation items 0 to 999999");
  fails_with("explain", model + " --task gsm8k", "/nowhere/gsm8k/train.jsonl");
  fails_with("explain", model + " --question 1+1? --answer 2 --chain '1+1 #### 2'", "holds the delimiter ####");
  auto const last = run("explain", model +
                                       " --item 999998 --items 9 --edit-chains 9 --estimators gradient --points 1"
                                       " --random-orders 1 --threads 1 --json " +
                                       out);
  if (!last) return;
  INFO(last->output);
  CHECK(last->status == 0);
  CHECK(contains(last->output, " of 2\n"));
  CHECK(read_json_file(out)["items"].size() <= 2);
}

TEST_CASE("reproduce_table1: finished arms are taken over where a setting has more digits than their file") {
  setting const s;
  std::string const common = "--model '" + std::string(ATMANRL_FIXTURES) +
                             "/../../examples/models/tiny' --steps 1 --prompts 1 --group-size 2 --questions 2"
                             " --samples 1 --causal-questions 4 --printed-mask-steps 1 --seeds 1 --threads 1 --out " +
                             (s.folder / "table1").string();
  auto const first = run("reproduce_table1", common + " --share 0.3333333333333333");
  if (!first) return;
  INFO(first->output);
  REQUIRE(first->status == 0);
  auto const again = run("reproduce_table1", common + " --share 0.3333333333333333");
  INFO(again->output);
  CHECK(again->status == 0);
  CHECK(contains(again->output, "outcome_only-seed1: taken from "));
  auto const other = run("reproduce_table1", common + " --share 0.333333");
  CHECK(other->status == 2);
  CHECK(contains(other->output, "was made with other settings"));
}

TEST_CASE("faithfulness: results of other settings are refused before anything is trained") {
  setting const s;
  std::filesystem::path const out = s.folder / "results",
                              there = out / "faithfulness-exploration/leaked_answer/hard/seed2-rl1-start.json";
  std::filesystem::create_directories(there.parent_path());
  write_file_atomically(there, R"({"arm": "start", "start": "hard", "seed": 2, "rl_seed": 1, "settings": {},)"
                               R"( "examination": {}})");
  fails_with("faithfulness",
             "--arms start --seeds 1 --rl-seeds 1 --start-kinds hard --out " + out.string() + " --starts " +
                 (s.folder / "starts").string(),
             "seed2-rl1-start.json was made with other settings");
  CHECK_FALSE(std::filesystem::exists(s.folder / "starts"));
}

TEST_CASE("faithfulness: an arm that a phase has not is refused, also beside one that it has") {
  setting const s;
  std::string const places = " --out " + (s.folder / "out").string() + " --starts " + (s.folder / "starts").string();
  fails_with("faithfulness", "--task skipped_step --start-kinds soft --arms outcome,hide_hint" + places,
             "--arms hide_hint: skipped_step has no such arm in the phase exploration from soft starts");
  fails_with("faithfulness", "--phase second_confirmation --start-kinds soft,hard --arms start,length" + places,
             "--arms length: leaked_answer has no such arm in the phase second_confirmation from soft, hard starts");
  fails_with("faithfulness", "--phase third_confirmation --start-kinds hard" + places,
             "the phase third_confirmation has no arms from hard starts");
  CHECK_FALSE((std::filesystem::exists(s.folder / "out") || std::filesystem::exists(s.folder / "starts")));
}

TEST_CASE("evaluate: other questions than those of --compare are refused before they are asked") {
  setting const s;
  std::string const first = (s.folder / "a.json").string(), second = (s.folder / "b.jsonl").string(),
                    common = "--model " + s.model + " --samples 1 --max-new-tokens 2 --threads 1";
  auto const r = run("evaluate", common + " --questions 2 --out " + first);
  if (!r) return;
  REQUIRE(r->status == 0);
  fails_with("evaluate", common + " --questions 3 --completions " + second + " --compare " + first,
             "evaluations of 2 and of 3 questions cannot be compared");
  fails_with("evaluate", common + " --task memorised --questions 2 --completions " + second + " --compare " + first,
             "evaluations of different questions cannot be compared: number 0 is arithmetic-evaluation-0");
  CHECK_FALSE(std::filesystem::exists(second));
  fails_with("evaluate", common + " --task mmlu --letters --compare " + first, "--compare is for completions");
}

TEST_CASE("evaluate: bad input ends with status 2 and one line that names it") {
  setting const s;
  std::string const model = "--model " + s.model;
  fails_with("evaluate", "--model /nowhere", "/nowhere");
  fails_with("evaluate", model + " --colour red", "--colour");
  fails_with("evaluate", model + " --samples 0", "--samples");
  fails_with("evaluate", model + " --prompt cot", "the task arithmetic has one wording");
  fails_with("evaluate", model + " --letters", "--letters asks MMLU");
  fails_with("evaluate", model + " --task memorised --prompt llama", "the task memorised has one wording");
  fails_with("evaluate", model + " --task mmlu --edit-chains 2", "--edit-chains: MMLU");
  fails_with("evaluate", model + " --task gsm8k", "/nowhere/gsm8k/train.jsonl");
  fails_with("evaluate", model + " --task mmlu --letters", "/nowhere/mmlu/test: there is no such folder");
  fails_with("evaluate", model + " --task mmlu --few-shot 2", "--few-shot");
  fails_with("evaluate", model + " --out " + (s.folder / "results/new.json").string(), "there is no folder");
  fails_with("evaluate", model + " --completions " + (s.folder / "results/a.jsonl").string(), "there is no folder");
  fails_with("evaluate", model + " --out ''", "--out: is empty");
  fails_with("evaluate", "--model /nowhere --out " + s.folder.path().string(), "--out");
  fails_with("evaluate", model + " --task mmlu --letters --out " + (s.folder / "a.json").string(), "--out is for");
  fails_with("evaluate", model + " --samples 2000000000", "--samples 2000000000");
  for (char const* const temperature : {"1e-40", "-1", "nan", "1e40"})
    fails_with("evaluate", model + " --temperature " + temperature, "--temperature");
  fails_with("evaluate", "--model " + (s.folder / std::string(300, 'n')).string(), "--model");
  fails_with("evaluate", model + " --adapter /nowhere", "/nowhere/adapter_config.json");
  fails_with("evaluate", model + " --compare /nowhere.json", "/nowhere.json");
}

TEST_CASE("evaluate: what it found is written where it cannot be printed") {
  setting const s;
  auto const path = program("evaluate");
  if (!path) {
    WARN("skipped: evaluate was not built");
    return;
  }
  std::string const out = (s.folder / "a.json").string();
  auto const full =
      run_command("( '" + path->string() + "' --model " + s.model +
                  " --questions 1 --samples 1 --max-new-tokens 2 --threads 1 --out " + out + " 2>&1 > /dev/full )");
  INFO(full.output);
  CHECK(full.status == 1);
  CHECK(contains(full.output, "standard output: the results could not be printed"));
  CHECK(read_json_file(out)["questions"] == 1);
}

TEST_CASE("sft: writes a model that loads, and says what is wrong") {
  setting const s;
  std::filesystem::path const out = s.folder / "tuned";
  std::string const common =
      "--model " + s.model + " --task arithmetic --examples 12 --held-out 4 --batch 4 --threads 1";
  auto const r = run("sft", common + " --lr 1e-3 --out " + out.string());
  if (!r) return;
  INFO(r->output);
  CHECK(r->status == 0);
  CHECK(contains(r->output, "step     2 of 2"));
  CHECK(contains(r->output, "held-out loss"));
  CHECK(model_file::open(out, standard_architectures()).config().layers == random_config().layers);
  fails_with("sft", "--model " + s.model + " --task gsm8k", "/nowhere/gsm8k/train.jsonl");
  fails_with("sft", "--model " + s.model + " --task arithmetic --examples 12 --held-out 12", "12 are to be held out");
  fails_with("sft", "--model /nowhere", "/nowhere");
  // Known before the first step is trained, and before a model is looked for.
  put(s.folder / "mine.txt", "years of work");
  fails_with("sft", common + " --out " + s.folder.path().string(), "cannot be replaced by a model");
  fails_with("sft", "--model /nowhere --out " + s.folder.path().string(), "also holds");
  fails_with("sft", common + " --out " + (s.folder / "mine.txt/model").string(), "--out ");
  fails_with("sft", common + " --out ''", "--out: is empty");
  fails_with("sft", "--model " + s.model + " --task arithmetic --examples 2000000000000", "--examples 2000000000000");
}

TEST_CASE(
    "programs: an unknown backend, a GPU's options without one, and a GPU where there is none end with one line") {
  setting const s;
  std::string const out = (s.folder / "out").string(), model = "--model " + s.model;
  for (std::string const name : {"evaluate", "sft", "explain", "ablation"}) {
    fails_with(name.c_str(), model + " --backend tpu", "--backend is \"tpu\"");
    fails_with(name.c_str(), model + " --device 1", "--device is 1, but it is for GPUs");
    fails_with(name.c_str(), model + " --tf32", "--tf32 is for GPUs");
    fails_with(name.c_str(), model + " --graphs off", "--graphs is off, but graphs are for GPUs");
    fails_with(name.c_str(), model + " --skinny-products on", "--skinny-products is for GPUs");
    if (name != "sft")
      fails_with(name.c_str(), model + " --bf16-weight-gradients true", "--bf16-weight-gradients is for GPUs");
  }
  for (std::string const option : {"--bf16-weight-gradients true", "--split-weight-gradients on"})
    fails_with("sft", model + " --bf16-products floats " + option,
               ("gradients of " + option + " need products by amx or amx_twin, not floats").c_str());
  for (char const* const name : {"evaluate", "sft"}) {
    fails_with(name, model + " --dtype f32 --bf16-products floats", "--bf16-products is floats, but it is for bf16");
    fails_with(name, model + " --backend cuda --bf16-products floats", "--bf16-products is for --backend cpu");
  }
  fails_with("mmlu_experiment", model + " --backend tpu --out " + out, "--backend is \"tpu\"");
  fails_with("reproduce_table1", "--backend tpu --out " + out, "--backend is \"tpu\"");
  fails_with("faithfulness", "--quick --backend tpu --out " + out, "--backend is \"tpu\"");
  if (!std::filesystem::exists("/dev/nvidia0"))
    for (std::string const name :
         {"evaluate", "sft", "explain", "ablation", "faithfulness", "mmlu_experiment", "reproduce_table1"}) {
      // Looked for before the model, which is not there.
      std::string const model_and_out =
          name == "faithfulness" ? "--quick --out "
                                 : "--model /nowhere " + std::string(name == "explain" ? "--json " : "--out ");
      auto const r = run(name.c_str(), "--backend cuda " + model_and_out + out);
      if (!r) continue;
      INFO(name << "\n" << r->output);
      CHECK(r->status == 2);
      CHECK(std::count(r->output.begin(), r->output.end(), '\n') == 1);
      CHECK((contains(r->output, "there is no CUDA device") || contains(r->output, "built without CUDA") ||
             contains(r->output, "atmanrl_on_cuda makes that library")));
    }
  CHECK_FALSE(std::filesystem::exists(out));
}

TEST_CASE("programs: products of 8 bits are those of packed weights on a CPU, and refused where there are none") {
  setting const s;
  std::string const packed = "--model " + (s.folder / "packed.gguf").string(), plain = "--model " + s.model;
  write_quantised_model(s.folder / "packed.gguf", quantised_config(), mixed_types);
  for (char const* const name : {"evaluate", "explain"}) {
    fails_with(name, plain + " --int8-products",
               ("--int8-products is for packed weights: " + s.model + " is no GGUF file with quantised").c_str());
    fails_with(name, packed + " --dtype f32 --int8-products",
               "--int8-products is for packed weights, but --dtype is f32");
    fails_with(name, packed + " --backend cuda --int8-products", "--int8-products is for --backend cpu");
  }
  auto const explained = [&](std::string const& option) {
    std::string const out = (s.folder / "explained.json").string();
    auto const r = run("explain", packed +
                                      " --question 1+1? --chain 1+1=2 --answer 2 --mask-steps 1 --points 1 --threads 1"
                                      " --json " +
                                      out + option);
    if (!r) return json();
    INFO(r->output);
    REQUIRE(r->status == 0);
    return read_json_file(out)["items"];
  };
  json const floats = explained(""), rounded = explained(" --int8-products");
  if (floats.is_null()) return;
  CHECK(floats == explained(" --dtype f32"));
  CHECK(floats != rounded);
}

TEST_CASE("mmlu_experiment: without a model or data it ends with one line") {
  setting const s;
  fails_with("mmlu_experiment", "", "--model is missing");
  fails_with("mmlu_experiment", "--model /nowhere --out " + (s.folder / "run").string(), "/nowhere");
  fails_with("mmlu_experiment", "--model " + s.model + " --out " + (s.folder / "run").string(),
             "/nowhere/mmlu/test: there is no such folder");
  fails_with("mmlu_experiment", "--model " + s.model + " --task gsm8k --out " + (s.folder / "run").string(),
             "--task is \"gsm8k\", but this experiment asks mmlu");
  CHECK_FALSE(std::filesystem::exists(s.folder / "run"));
}

}  // namespace evaluate_program_test
