// What ends a turn ends a completion: where models are sampled, evaluated, trained and saved.
#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/experiment/traits_parts.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/save_model.hpp>
#include <atmanrl/rl/sft.hpp>
#include <atmanrl/tasks/arithmetic.hpp>

#include "catch.hpp"
#include "experiment/run_setting.hpp"
#include "strangers.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace chat_run_test {
namespace {

/// A base model whose vocabulary has ChatML's tokens and whose end of text is another one.
struct turn_end_base {
  turn_end_base() : folder(scratch / "model") {
    model_config c = random_config();
    c.vocab = 261;
    c.max_positions = 512;
    c.bos_id = 258;
    c.stop_ids = {258};
    row_source const rows = [](std::string_view, index_t, index_t, std::span<float> out) {
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = float(i % 7) / 8;
    };
    hugging_face_options options{.type = dtype::f32};
    options.copy_files = tokenizer_files(fixture("text/chat/turn_end_base"));
    save_hugging_face_folder(folder, c, standard_kind(c), rows, options);
  }
  scratch_folder scratch;
  std::filesystem::path folder;
};

/// Draws one token for ever.
struct always {
  int id = 0;
  int operator()(std::span<float const>, double, double) const { return id; }
};

struct bracketed_traits : gsm8k_traits<> {
  using chat = strangers::bracketed_chat;
};

}  // namespace

TEST_CASE("experiment: the end of a turn of the chat format ends sampling, is no part of the answer, and is saved") {
  turn_end_base const base;
  cpu_backend backend(cpu_options{.threads = 1});
  auto model = llama<cpu_backend>::load(backend, base.folder);
  REQUIRE(model.config().stop_ids == std::vector{258});
  tokenizer const plain = tokenizer::load(base.folder), chatty = plain.with_chat(chat_options{.format = "chatml"});
  arithmetic const task;
  CHECK(answer_end_id(plain, plain.chat(), model.config().stop_ids) == 258);
  int const end = answer_end_id(chatty, chatty.chat(), model.config().stop_ids);
  CHECK(end == 260);

  evaluation_options const two{.questions = 2, .samples = 1, .max_new_tokens = 4, .on_progress = {}};
  for (bool const ends : {true, false}) {
    evaluation const e = evaluate(model, ends ? chatty : plain, task, two, always{end});
    for (auto const& q : e.per_question) {
      CHECK(q.truncated == (ends ? 0 : 1));
      CHECK(q.tokens == (ends ? 1 : 4));
    }
  }

  grpo trainer(model, chatty, task, rewards::correct_answer{}, grpo_options{.group_size = 2, .max_new_tokens = 4},
               advantages::mean_centered{}, losses::grpo{}, always{end});
  auto const step = trainer.sample(std::vector<task_item>{task.evaluation_item(0)});
  for (rollout const& r : step.groups[0].rollouts) {
    CHECK(r.ids == std::vector{260});
    CHECK_FALSE(r.truncated);
    CHECK(r.spans.cot.empty());
  }

  // The saved folder is spoken to as it was trained, and stops where it was taught to.
  auto const saved = base.scratch / "saved";
  save_model(saved, trainer.policy(), chatty, base.folder, dtype::f32);
  CHECK(read_json_file(saved / "generation_config.json")["eos_token_id"] == json{258, 260});
  CHECK(model_file::open(saved, standard_architectures()).config().stop_ids == std::vector{258, 260});
  tokenizer const again = tokenizer::load(saved);
  task_item const item = task.evaluation_item(3);
  CHECK(task.prompt(item, again) == task.prompt(item, chatty));
  CHECK(task.prompt(item, again) != task.prompt(item, plain));
  CHECK(stop_ids(again, {}) == std::vector{258, 260});
}

TEST_CASE("experiment: the chat template of the traits is used, and an option must not contradict it") {
  turn_end_base const base;
  experiment_options o;
  o.model = base.folder;
  tokenizer const words = detail::open_tokenizer<bracketed_traits>(o);
  CHECK(words.decode(arithmetic().prompt(arithmetic().evaluation_item(0), words)).starts_with("[user] "));
  CHECK(stop_ids(words, {}) == std::vector{258, 260});
  o.chat.format = "chatml";
  CHECK_THROWS_WITH(detail::open_tokenizer<bracketed_traits>(o),
                    ATMANRL_CONTAINS("--chat is chatml") && ATMANRL_CONTAINS("a chat template of its own"));
  CHECK(detail::open_tokenizer<gsm8k_traits<>>(o).chat().name() == "chatml");
}

}  // namespace chat_run_test
