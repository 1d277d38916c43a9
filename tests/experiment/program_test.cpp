// The program itself: exit statuses, one-line errors, a kill at any moment.
#include <atmanrl/io/checkpoint.hpp>
#include <atmanrl/io/jsonl.hpp>
#include <atmanrl/io/model_file.hpp>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "catch.hpp"
#include "run_setting.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace program_test {
namespace {

struct setting {
  scratch_folder folder;
  std::filesystem::path model = folder / "model";
  std::optional<std::filesystem::path> gsm8k_experiment = program("gsm8k_experiment");
  setting() { write_random_model(model, random_config()); }

  std::vector<std::string> arguments(std::string const& out, std::vector<std::string> more = {}) const {
    std::vector<std::string> a{gsm8k_experiment->string(),
                               "--model",
                               model.string(),
                               "--out",
                               (folder / out).string(),
                               "--steps",
                               "6",
                               "--prompts-per-step",
                               "2",
                               "--group-size",
                               "4",
                               "--max-new-tokens",
                               "12",
                               "--mask-steps",
                               "3",
                               "--no-delimiter",
                               "force",
                               "--eval-questions",
                               "2",
                               "--eval-samples",
                               "2",
                               "--checkpoint-every",
                               "1",
                               "--threads",
                               "1"};
    a.insert(a.end(), more.begin(), more.end());
    return a;
  }
  program_result run(std::vector<std::string> const& arguments) const {
    std::string command;
    for (std::string const& a : arguments) command += " '" + a + "'";
    return run_command(command);
  }
};

pid_t start(std::vector<std::string> const& arguments) {
  std::vector<char*> argv;
  for (std::string const& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  pid_t const child = ::fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stdout);
    std::freopen("/dev/null", "w", stderr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  return child;
}

bool not_built(setting const& s) {
  if (s.gsm8k_experiment) return false;
  WARN("skipped: gsm8k_experiment was not built");
  return true;
}

bool one_line(program_result const& r) { return std::count(r.output.begin(), r.output.end(), '\n') == 1; }

}  // namespace

TEST_CASE("gsm8k_experiment: bad input ends with status 2, one line that names it, and no folder") {
  setting const s;
  if (not_built(s)) return;
  struct wrong {
    std::vector<std::string> arguments;
    char const* said;
  };
  std::filesystem::create_directories(s.folder / "empty");
  put(s.folder / "empty" / "train.jsonl", "");
  put(s.folder / "empty" / "test.jsonl", "");
  for (wrong const& w :
       std::initializer_list<wrong>{{{"--steps", "many"}, "--steps is \"many\""},
                                    {{"--steps", "0"}, "--steps is 0"},
                                    {{"--colour", "red"}, "--colour"},
                                    {{"--mask-shape", "round"}, "--mask-shape is \"round\""},
                                    {{"--preset", "fast"}, "--preset is \"fast\""},
                                    {{"--model", "/no/such/model"}, "/no/such/model"},
                                    {{"--task", "gsm8k", "--data", "/no/such/data"}, "/no/such/data"},
                                    {{"--task", "gsm8k", "--data", (s.folder / "empty").string()}, "train.jsonl"},
                                    {{"--tf32"}, "--tf32 is for"},
                                    {{"--graphs", "off"}, "--graphs is off"},
                                    {{"--skinny-products", "on"}, "--skinny-products is for"},
                                    {{"--graphs", "maybe"}, "--graphs is \"maybe\""},
                                    {{"--device", "1"}, "--device is 1, but it is for GPUs"},
                                    {{"--device", "-1"}, "--device is -1"},
                                    {{"--bf16-products", "floats"}, "--bf16-products is floats, but it is for bf16"},
                                    {{"--bf16-weight-gradients", "true", "--bf16-products", "floats"},
                                     "--bf16-weight-gradients true need products by amx"},
                                    {{"--split-weight-gradients", "on", "--bf16-products", "floats"},
                                     "--split-weight-gradients on need products by amx"},
                                    {{"--few-shot", "2"}, "--few-shot is 2"},
                                    {{"--temperature", "1e-40"}, "--temperature is 1e-40"},
                                    {{"--prompts-per-step", "2000000000"}, "--prompts-per-step (2000000000 now)"},
                                    {{"--group-size", "2000000000"}, "--group-size (2000000000)"},
                                    {{"--lora-rank", "2000000000"}, "--lora-rank is 2000000000"},
                                    {{"--resume", ""}, "--resume is empty"},
                                    {{"--out", ""}, "--out is empty"},
                                    {{"--out", std::string(300, 'n')}, "--out "},
                                    {{"--model", std::string(300, 'n')}, "--model "},
                                    {{"--adapter", std::string(300, 'n')}, "--adapter "},
                                    {{"--task", "gsm8k", "--data", std::string(300, 'n')}, "--data "},
                                    {{"--resume", std::string(300, 'n')}, "--resume "}}) {
    auto const r = s.run(s.arguments("out", w.arguments));
    INFO(r.output);
    CHECK(r.status == 2);
    CHECK(one_line(r));
    CHECK(contains(r.output, w.said));
    CHECK_FALSE(std::filesystem::exists(s.folder / "out"));
  }
}

TEST_CASE("gsm8k_experiment: an unknown backend, and a GPU where there is none, end with status 2 and one line") {
  setting const s;
  if (not_built(s)) return;
  auto const unknown = s.run(s.arguments("out", {"--backend", "tpu"}));
  CHECK(unknown.status == 2);
  CHECK(one_line(unknown));
  CHECK(contains(unknown.output, "--backend is \"tpu\""));
  if (std::filesystem::exists("/dev/nvidia0")) return;
  for (std::vector<std::string> const& given :
       {std::vector<std::string>{"--backend", "cuda"}, {"--backend=cuda", "--model", "/no/such/model"}}) {
    auto const none = s.run(s.arguments("out", given));
    INFO(none.output);
    CHECK(none.status == 2);
    CHECK(one_line(none));
    CHECK((contains(none.output, "there is no CUDA device") || contains(none.output, "built without CUDA") ||
           contains(none.output, "atmanrl_on_cuda makes that library")));
    CHECK_FALSE(std::filesystem::exists(s.folder / "out"));
  }
}

TEST_CASE("gsm8k_experiment: a folder that is in use and a contradicted resume end with status 2") {
  setting const s;
  if (not_built(s)) return;
  std::filesystem::create_directories(s.folder / "used");
  put(s.folder / "used" / "notes.txt", "mine");
  auto const used = s.run(s.arguments("used"));
  CHECK(used.status == 2);
  CHECK(one_line(used));
  CHECK(contains(used.output, "is not empty"));
  CHECK(content(s.folder / "used" / "notes.txt") == "mine");
  auto const nothing = s.run({s.gsm8k_experiment->string(), "--resume", (s.folder / "used").string()});
  CHECK(nothing.status == 2);
  CHECK(contains(nothing.output, "options.json is missing"));
}

TEST_CASE("gsm8k_experiment: an option that is given wins over the preset, wherever it stands") {
  setting const s;
  if (not_built(s)) return;
  auto arguments = s.arguments(
      "out", {"--mask-lr", "0.5", "--preset", "paper", "--steps", "1", "--mask-steps", "1", "--mask-lr", "0.25"});
  auto const r = s.run(arguments);
  INFO(r.output);
  REQUIRE(r.status == 0);
  json const o = read_json_file(s.folder / "out" / "options.json");
  CHECK(o["preset"] == "paper");
  CHECK(o["mask-lr"] == 0.25);
  CHECK(o["group-size"] == 4);
  CHECK(o["mask-shape"] == "pair");
  CHECK(o["lr"] == 1e-6);
  CHECK(contains(r.output, "memory: "));
  CHECK(contains(r.output, "masks trained"));
  auto const resumed = s.run({s.gsm8k_experiment->string(), "--resume", (s.folder / "out").string(), "--steps", "2"});
  CHECK(resumed.status == 2);
  CHECK(contains(resumed.output, "--steps 2 contradicts"));
}

// Starts the run that `arguments` say, or goes on with it, and kills it a little after its metrics have `lines` lines.
// Whether it was still running then.
bool killed_behind(std::size_t lines, std::vector<std::string> const& arguments, std::filesystem::path const& out) {
  pid_t const child = start(arguments);
  REQUIRE(child > 0);
  auto const patience = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  int status = 0;
  while (count_lines(out / "metrics.jsonl") < lines && std::chrono::steady_clock::now() < patience) {
    if (::waitpid(child, &status, WNOHANG) != 0) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(2 * lines));
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status);
}

TEST_CASE("gsm8k_experiment: killed at any moment and resumed, it ends with the bytes of an uninterrupted run") {
  setting const s;
  if (not_built(s)) return;
  // On a busy machine a short run may end before it is killed: then a longer one is tried.
  std::filesystem::path whole, out;
  int steps = 12;
  for (bool killed = false; not killed; steps *= 4) {
    REQUIRE(steps < 10000);
    auto const more = std::vector<std::string>{"--steps", std::to_string(steps)};
    whole = s.folder / fmt::format("whole-{}", steps);
    out = s.folder / fmt::format("killed-{}", steps);
    killed = true;
    for (std::size_t const lines : {1u, 2u, 4u}) {
      bool const first = not std::filesystem::exists(out / "options.json");
      auto const arguments = first ? s.arguments(out.filename().string(), more)
                                   : std::vector<std::string>{s.gsm8k_experiment->string(), "--resume", out.string()};
      killed = killed and killed_behind(lines, arguments, out);
    }
    if (killed) REQUIRE(s.run(s.arguments(whole.filename().string(), more)).status == 0);
  }
  CHECK_FALSE(std::filesystem::exists(out / "summary.txt"));
  REQUIRE(s.run({s.gsm8k_experiment->string(), "--resume", out.string(), "--threads", "2"}).status == 0);
  for (char const* const name : {"metrics.jsonl", "completions.jsonl", "evaluation_before.json",
                                 "evaluation_after.json", "summary.txt", "model/model.safetensors"}) {
    INFO(name);
    CHECK((content(out / name) == content(whole / name)));
  }
}

TEST_CASE("gsm8k_experiment: where nothing can be printed it writes the same files and ends as always") {
  setting const s;
  if (not_built(s)) return;
  REQUIRE(s.run(s.arguments("whole")).status == 0);
  int number = 0;
  for (char const* const streams :
       {">&- 2>&-", "<&- >&- 2>&-", "2>&-", ">&-", ">/dev/full 2>/dev/full", "2>&1 | head -c 1 > /dev/null"}) {
    auto const out = fmt::format("quiet-{}", number++);
    std::string command;
    for (std::string const& a : s.arguments(out)) command += " '" + a + "'";
    INFO(streams);
    // In a pipe the shell's status is that of the last program; the first one's is written down.
    auto const status = (s.folder / "status").string();
    run_command("( { " + command + "; echo $? > '" + status + "'; } " + streams + " )");
    CHECK(content(status) == "0\n");
    for (char const* const name :
         {"metrics.jsonl", "completions.jsonl", "causal.jsonl", "summary.txt", "model/model.safetensors"}) {
      INFO(name);
      REQUIRE(std::filesystem::exists(s.folder / out / name));
      CHECK((content(s.folder / out / name) == content(s.folder / "whole" / name)));
    }
  }
}

TEST_CASE("gsm8k_experiment: a run that is going on is not continued by a second process") {
  setting const s;
  if (not_built(s)) return;
  auto const out = s.folder / "busy";
  pid_t const child = start(s.arguments("busy", {"--steps", "100000"}));
  REQUIRE(child > 0);
  for (int i = 0; i < 60000 && count_lines(out / "metrics.jsonl") < 1; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  auto const second = s.run({s.gsm8k_experiment->string(), "--resume", out.string()});
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  INFO(second.output);
  CHECK(second.status == 2);
  CHECK(one_line(second));
  CHECK(contains(second.output, "another process is writing this run"));
  CHECK(content(out / "metrics.jsonl").find('\0') == std::string::npos);
}

TEST_CASE("gsm8k_experiment: what a run goes on from is looked at first, and nothing is cut where it cannot go on") {
  setting const s;
  if (not_built(s)) return;
  auto const whole = s.folder / "whole", out = s.folder / "out";
  REQUIRE(s.run(s.arguments("whole")).status == 0);
  REQUIRE(s.run(s.arguments("out", {"--steps", "6"})).status == 0);
  std::filesystem::remove_all(out / "model");
  std::filesystem::remove(out / "summary.txt");
  std::string const metrics = content(out / "metrics.jsonl"), options = content(out / "options.json");
  auto const resume = [&] { return s.run({s.gsm8k_experiment->string(), "--resume", out.string()}); };
  auto const refused = [&](char const* part) {
    auto const r = resume();
    INFO(r.output);
    CHECK(r.status == 2);
    CHECK(contains(r.output, part));
    CHECK(content(out / "metrics.jsonl").size() >= 100);
  };
  // Options that were changed by hand.
  for (auto const& [from, to] : {std::pair{"\"lr\": 2e-05", "\"lr\": 0.5"}, {"\"steps\": 6", "\"steps\": 7"}}) {
    std::string changed = options;
    REQUIRE(changed.find(from) != std::string::npos);
    changed.replace(changed.find(from), std::string_view(from).size(), to);
    put(out / "options.json", changed);
    refused("options.json: ");
  }
  put(out / "options.json", options);
  // Checkpoints that cannot be read are not none.
  std::filesystem::rename(out / "checkpoints", s.folder / "kept");
  std::filesystem::create_symlink("checkpoints", out / "checkpoints");
  refused("checkpoints: ");
  CHECK(content(out / "metrics.jsonl") == metrics);
  std::filesystem::remove(out / "checkpoints");
  std::filesystem::rename(s.folder / "kept", out / "checkpoints");
  // A line in the middle that every checkpoint counts on.
  std::string damaged = metrics;
  damaged[metrics.find('\n') + 10] = '\0';
  put(out / "metrics.jsonl", damaged);
  refused("metrics.jsonl:2: not valid JSON");
  // The last line is gone: the checkpoint before fits.
  put(out / "metrics.jsonl", metrics.substr(0, metrics.rfind("{\"step\":6")));
  auto const r = resume();
  INFO(r.output);
  CHECK(r.status == 0);
  CHECK(contains(r.output, "has 5 complete lines but 6 are to be kept; the checkpoint before it is looked at"));
  CHECK(contains(r.output, "continuing after step 5"));
  for (char const* const name : {"metrics.jsonl", "completions.jsonl", "summary.txt", "model/model.safetensors"}) {
    INFO(name);
    CHECK((content(out / name) == content(whole / name)));
  }
}

TEST_CASE("gsm8k_experiment: Ctrl-C ends with status 130 and says how to go on") {
  setting const s;
  if (not_built(s)) return;
  auto const out = s.folder / "stopped";
  std::string command;
  for (std::string const& a : s.arguments("stopped", {"--steps", "100000"})) command += " '" + a + "'";
  // `exec` makes the shell's process the program, so that the signal goes to it.
  std::thread interrupter([&] {
    for (int i = 0; i < 60000 && count_lines(out / "metrics.jsonl") < 2; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    auto const pid = content(s.folder / "pid");
    ::kill(pid_t(std::stol(pid)), SIGINT);
  });
  auto const r = run_command("echo $$ > '" + (s.folder / "pid").string() + "'; exec" + command);
  interrupter.join();
  INFO(r.output);
  CHECK(r.status == 130);
  CHECK(contains(r.output, "continue with --resume " + out.string()));
  CHECK(count_lines(out / "metrics.jsonl") >= 2);
  CHECK_FALSE(list_checkpoints(out / "checkpoints").empty());
}

TEST_CASE("gsm8k_experiment: GSM8K's own questions with worked examples", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  setting const s;
  if (not_built(s)) return;
  model_config c = random_config();
  c.max_positions = 8192;  // this vocabulary spells questions in bytes
  write_random_model(s.folder / "long", c);
  auto const r = s.run(
      s.arguments("out", {"--model", (s.folder / "long").string(), "--task", "gsm8k", "--data",
                          (*data / "gsm8k").string(), "--few-shot", "1", "--steps", "1", "--eval-questions", "1"}));
  INFO(r.output);
  REQUIRE(r.status == 0);
  auto const lines = read_json_lines(s.folder / "out" / "completions.jsonl");
  REQUIRE(lines.size() == 8);
  CHECK(lines[0]["item"].get<std::string>().starts_with("gsm8k-train-"));
  CHECK(lines[0]["saliency"].is_object());
}

TEST_CASE("gsm8k_experiment: the exact config.json of Llama-3.2-3B-Instruct with two layers, random bf16, two shards",
          "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  setting const s;
  if (not_built(s)) return;
  // As Meta publishes it, num_hidden_layers apart.
  static constexpr char const* config_text = R"({
  "architectures": ["LlamaForCausalLM"],
  "attention_bias": false,
  "attention_dropout": 0.0,
  "bos_token_id": 128000,
  "eos_token_id": [128001, 128008, 128009],
  "head_dim": 128,
  "hidden_act": "silu",
  "hidden_size": 3072,
  "initializer_range": 0.02,
  "intermediate_size": 8192,
  "max_position_embeddings": 131072,
  "mlp_bias": false,
  "model_type": "llama",
  "num_attention_heads": 24,
  "num_hidden_layers": 2,
  "num_key_value_heads": 8,
  "pretraining_tp": 1,
  "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0,
  "tie_word_embeddings": true,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.45.0.dev0",
  "use_cache": true,
  "vocab_size": 128256
})";
  model_config const c = parse_hugging_face_config(parse_json(config_text, "config.json"), nullptr,
                                                   standard_architectures(), "config.json");
  std::uint64_t state = 1;
  row_source const rows = [&](std::string_view name, index_t, index_t, std::span<float> out) {
    bool const gain = name.find("norm") != std::string_view::npos;
    for (float& x : out) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      x = gain ? 1.0f : float(std::int32_t(state >> 32)) * 0x1p-31f * 0.035f;  // uniform with deviation 0.02
    }
  };
  auto const model = s.folder / "llama";
  save_hugging_face_folder(
      model, c, standard_kind(c), rows,
      {.type = dtype::bf16, .max_shard_bytes = 900000000, .copy_files = {*data / "tokenizers/llama3/tokenizer.json"}});
  put(model / "config.json", config_text);
  std::filesystem::copy_file(*data / "tokenizers/llama3/tokenizer_config.json", model / "tokenizer_config.json");
  std::filesystem::copy_file(*data / "tokenizers/templates/meta-llama-Llama-3.2-3B-Instruct.jinja",
                             model / "chat_template.jinja");
  REQUIRE(std::filesystem::exists(model / "model-00002-of-00002.safetensors"));
  REQUIRE_FALSE(std::filesystem::exists(model / "model-00003-of-00003.safetensors"));

  auto const out = s.folder / "out";
  auto const r =
      run_command("'" + s.gsm8k_experiment->string() + "' --model '" + model.string() + "' --out '" + out.string() +
                  "' --task gsm8k --data '" + (*data / "gsm8k").string() +
                  "' --dtype bf16 --steps 1 --prompts-per-step 1 --group-size 2 --max-new-tokens 4 --mask-steps 1 "
                  "--no-delimiter force"
                  " --mask-scale 10 --inner-passes 1 --eval-questions 1 --eval-samples 1 --checkpoint-every 0");
  INFO(r.output);
  REQUIRE(r.status == 0);
  auto const metrics = read_json_lines(out / "metrics.jsonl");
  REQUIRE(metrics.size() == 1);
  CHECK(metrics[0]["saliency/masks_trained"] == 2);
  CHECK(metrics[0]["ratio/min"] == 1.0);
  CHECK(metrics[0]["ratio/max"] == 1.0);
  auto const lines = read_json_lines(out / "completions.jsonl");
  CHECK(contains(lines[0]["prompt"].get<std::string>(), "<|begin_of_text|><|start_header_id|>system<|end_header_id|>"));
  CHECK(model_file::open(out / "model", standard_architectures()).config() ==
        model_file::open(model, standard_architectures()).config());
}

TEST_CASE("sft: more examples than the data has are refused, since those that are held out would be trained on") {
  auto const sft = program("sft");
  if (!sft) {
    WARN("skipped: sft was not built");
    return;
  }
  setting const s;
  auto const with = [&](int examples) {
    return run_command(fmt::format("'{}' --model '{}' --data '{}' --held-out 1 --threads 1 --examples {}",
                                   sft->string(), s.model.string(), fixture("tasks/gsm8k").string(), examples));
  };
  auto const refused = with(6);
  CHECK(refused.status == 2);
  CHECK(one_line(refused));
  CHECK(contains(refused.output, "--examples is 6, but gsm8k has 5"));
  CHECK_FALSE(contains(with(5).output, "but gsm8k has"));
}

}  // namespace program_test
