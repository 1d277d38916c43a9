// A run with strangers in every slot of the traits, on a backend with an option of its own, and an evaluation of a
// stranger's model.
#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/experiment/experiment.hpp>

#include "catch.hpp"
#include "run_setting.hpp"
#include "strangers.hpp"
#include "toy_task.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace strangers_run_test {
namespace {

struct strangers_alone : gsm8k_traits<strangers::dirty_backend> {
  using weights = weight_types<float>;
  using tokenizer = strangers::byte_tokens;
  using task = strangers::next_digit;
  using reward = rewards::weighted_sum<rewards::correct_answer, rewards::saliency<strangers::half_weight>>;
  using advantage = strangers::last_token_pays;
  using loss = strangers::reinforce;
  using optimizer = strangers::sign_momentum;
  using schedule = strangers::halving;
  using observer = observers::all<strangers::longest_chain>;

  static tokenizer make_tokenizer(experiment_options const&) { return {}; }
  static task make_task(experiment_options const&) { return {}; }
  static std::vector<own_option> own_options() { return {{"dirty-byte", 0xff, "what every byte of new memory is"}}; }
  static std::unique_ptr<backend> make_backend(experiment_options const& o) {
    return std::make_unique<backend>(backend::options_type{.byte = int(o.own_value("dirty-byte"))});
  }
};

struct setting {
  scratch_folder folder;
  setting() { write_random_model(folder / "model", random_config()); }
  experiment_options options(char const* name) const {
    experiment_options o = short_run(folder / "model", folder / name);
    o.own = strangers_alone::own_options();
    o.saliency_weight = 1;  // a random model's answers are all wrong, so that the saliency alone must teach
    o.eval_questions = 2;
    return o;
  }
};

std::vector<char const*> const compared{"metrics.jsonl", "completions.jsonl", "evaluation_after.json",
                                        "model/model.safetensors"};

}  // namespace

TEST_CASE_METHOD(setting,
                 "experiment: strangers in every slot train, are watched, saved, and go on from a checkpoint") {
  auto const whole = options("whole");
  REQUIRE(experiment<strangers_alone>{whole}.run() == 0);
  auto const lines = read_json_lines(whole.out / "metrics.jsonl");
  REQUIRE(lines.size() == 3);
  for (json const& line : lines) {
    CHECK(line["strangers/longest_chain"].get<double>() > 0);
    CHECK(line["task"] == "next_digit");
  }
  CHECK(read_json_file(whole.out / "evaluation_before.json")["questions"] == 2);
  for (json const& line : read_json_lines(whole.out / "completions.jsonl")) {
    CHECK(line["item"].get<std::string>().starts_with("after-"));
    CHECK_FALSE(line["item"] == "after-7");
    // Tokens are bytes, and what is after the vocabulary is never drawn.
    for (int const id : line["ids"].get<std::vector<int>>()) CHECK(id <= strangers::byte_tokens::end);
  }
  CHECK_FALSE(std::filesystem::exists(whole.out / "model" / "tokenizer.json"));  // it cannot be written as one
  auto const saved = load_checkpoint(whole.out / "checkpoints" / "step-000002.checkpoint").arrays;
  CHECK(saved.contains("average"));

  // As if it had been killed in step 3.
  auto const cut = folder / "cut";
  std::filesystem::copy(whole.out, cut, std::filesystem::copy_options::recursive);
  std::filesystem::remove(cut / "checkpoints" / "step-000003.checkpoint");
  std::filesystem::remove_all(cut / "model");
  std::filesystem::remove(cut / "evaluation_after.json");
  REQUIRE(experiment<strangers_alone>{stored_options(cut, strangers_alone::own_options())}.run() == 0);
  // What new memory is full of changes nothing, or something is read before it is written.
  auto clean = options("clean");
  set_option(clean, "dirty-byte", "0");
  REQUIRE(experiment<strangers_alone>{clean}.run() == 0);
  CHECK(read_json_file(clean.out / "options.json")["dirty-byte"] == 0);
  for (char const* const name : compared) {
    INFO(name);
    CHECK((content(whole.out / name) == content(cut / name)));
    CHECK((content(whole.out / name) == content(clean.out / name)));
  }
}

TEST_CASE("experiment: a backend is made by the traits from options of its own, which are stored with the run") {
  experiment_options o;
  o.own = strangers_alone::own_options();
  CHECK(detail::make_backend<strangers_alone>(o)->options().byte == 0xff);
  set_option(o, "dirty-byte", "17");
  auto const backend = detail::make_backend<strangers_alone>(o);
  CHECK(backend->options().byte == 17);
  tensor<strangers::dirty_backend, std::uint8_t, 1> const memory(*backend, {3});
  CHECK(memory.to_host() == std::vector<std::uint8_t>{17, 17, 17});
  CHECK(options_from_json(json::parse(options_to_json(o).dump()), "x", strangers_alone::own_options())
            .own_value("dirty-byte") == 17);
  o.tf32 = true;
  CHECK_THROWS_WITH(detail::make_backend<strangers_alone>(o), ATMANRL_CONTAINS("--tf32 is for"));
  // Without make_backend: --threads where the backend knows it.
  o.tf32 = false;
  o.threads = 1;
  CHECK(detail::make_backend<gsm8k_traits<>>(o)->threads() == 1);
}

TEST_CASE_METHOD(setting, "experiment: with a tokenizer from outside the model's chat options are refused") {
  auto o = options("chat");
  set_option(o, "chat", "chatml");
  CHECK_THROWS_WITH(experiment<strangers_alone>{o}.run(),
                    ATMANRL_CONTAINS("--chat is chatml") && ATMANRL_CONTAINS("a tokenizer of its own"));
  CHECK_FALSE(std::filesystem::exists(o.out));
}

TEST_CASE_METHOD(setting, "experiment: a tokenizer from outside that has more tokens than the model is refused") {
  model_config c = random_config();
  c.vocab = 200;
  c.bos_id = -1;
  c.stop_ids = {0};
  write_random_model(folder / "small", c);
  auto o = options("vocabulary");
  o.model = folder / "small";
  CHECK_THROWS_WITH(experiment<strangers_alone>{o}.run(), ATMANRL_CONTAINS("the tokenizer has 257 tokens"));
}

TEST_CASE("evaluate: a stranger's model on a stranger's backend answers a stranger's task as in plain loops") {
  toy_tokenizer const words;
  strangers::next_digit const task;
  evaluation_options o;
  o.questions = 10;
  o.samples = 6;
  o.max_new_tokens = 8;
  o.seed = 3;
  auto const evaluated = [&]<class B>(B&& backend) {
    auto model = random_tiny_model<std::remove_cvref_t<B>, float>(backend, words.vocab_size(), 3);
    return evaluate(model, words, task, o, samplers::multinomial{});
  };
  evaluation const found = evaluated(strangers::dirty_backend()), expected = evaluated(reference_backend());
  CHECK(to_json(found) == to_json(expected));
  CHECK(found.questions == 2);
  CHECK(found.tokens > 0);
}

}  // namespace strangers_run_test
