// Whole runs that train adapters.
#include <atmanrl/experiment/experiment.hpp>

#include "catch.hpp"
#include "run_setting.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace lora_run_test {
namespace {

struct setting {
  scratch_folder folder;
  std::filesystem::path model = folder / "model";
  setting() { write_random_model(model, random_config()); }
  experiment_options options(char const* name) const {
    experiment_options o = short_run(model, folder / name);
    o.lora_rank = 2;
    o.lora_alpha = 6;
    o.learning_rate = 1e-2;
    o.saliency_weight = 1;  // a random model's answers are all wrong, so that the saliency alone must teach
    return o;
  }
};

int run(experiment_options const& o) { return experiment<gsm8k_traits<>>{o}.run(); }

std::vector<float> logits(llama<cpu_backend>& model) {
  std::vector<int> const ids{1, 2, 3, 4, 5, 6, 7};
  kv_cache<cpu_backend, float> cache(model.backend(), model.config(), 7);
  forward_pass<cpu_backend, float> pass(model.backend());
  ragged_batch batch;
  batch.add(cache.add_sequence(7), ids);
  model.forward(cache, batch, pass);
  tensor<cpu_backend, float, 2> out;
  model.logits(pass, std::vector<int>{0, 3, 6}, out);
  return out.to_host();
}

}  // namespace

TEST_CASE(
    "experiment: a run with adapters writes them for PEFT and, asked for, the merged model, and both compute the "
    "same") {
  setting const s;
  auto o = s.options("run");
  o.merge = true;
  REQUIRE(run(o) == 0);
  cpu_backend backend({.threads = 1});
  auto base = llama<cpu_backend>::load(backend, s.model), merged = llama<cpu_backend>::load(backend, o.out / "model");
  auto const before = logits(base);
  base.load_adapters(o.out / "adapter");
  auto const with = logits(base);
  CHECK(with != before);
  auto const alone = logits(merged);
  for (std::size_t i = 0; i < with.size(); ++i) CHECK(alone[i] == Approx(with[i]).margin(1e-5));
  CHECK(base.adapter_config()->alpha == 6);
  json const config = read_json_file(o.out / "adapter" / "adapter_config.json");
  CHECK(config["base_model_name_or_path"] == s.model.string());
  auto const newest = load_checkpoint(o.out / "checkpoints" / "step-000003.checkpoint");
  CHECK(index_t(newest.arrays.at("weights").size()) == base.trainable_layout().size());

  SECTION("another run goes on from the adapter folder") {
    auto second = s.options("second");
    second.lora_rank = 0;
    second.adapter = o.out / "adapter";
    REQUIRE(run(second) == 0);
    CHECK((content(o.out / "evaluation_after.json") == content(second.out / "evaluation_before.json")));
    CHECK(std::filesystem::exists(second.out / "adapter" / "adapter_model.safetensors"));
    CHECK_FALSE(std::filesystem::exists(second.out / "model"));
    CHECK(read_peft_config(second.out / "adapter") == read_peft_config(o.out / "adapter"));
    second.out = s.folder / "third";
    second.lora_rank = 4;
    CHECK_THROWS_WITH(run(second), ATMANRL_CONTAINS("has rank 2"));
    CHECK_FALSE(std::filesystem::exists(second.out));
  }
}

TEST_CASE("experiment: a run with adapters that is continued ends with the same bytes") {
  setting const s;
  auto const whole = s.options("whole");
  REQUIRE(run(whole) == 0);
  auto part = s.options("part");
  REQUIRE(run(part) == 0);
  // As a process that was killed in the third step leaves it.
  for (char const* const name :
       {"adapter", "summary.txt", "evaluation_after.json", "checkpoints/step-000003.checkpoint"})
    std::filesystem::remove_all(part.out / name);
  REQUIRE(std::filesystem::exists(part.out / "checkpoints/step-000002.checkpoint"));
  part.resume = part.out;
  REQUIRE(run(part) == 0);
  for (char const* const name :
       {"metrics.jsonl", "completions.jsonl", "evaluation_before.json", "evaluation_after.json",
        "adapter/adapter_model.safetensors", "adapter/adapter_config.json"}) {
    INFO(name);
    CHECK((content(whole.out / name) == content(part.out / name)));
  }
}

TEST_CASE("experiment: the options of adapters are checked, stored and read back") {
  experiment_options o;
  set_option(o, "lora-rank", "4");
  set_option(o, "lora-alpha", "2.5");
  set_option(o, "lora-targets", "v_proj,q_proj");
  set_option(o, "adapter", "some/folder");
  set_option(o, "merge", "true");
  CHECK(o.lora() == lora_config{.rank = 4, .alpha = 2.5, .targets = {"q_proj", "v_proj"}});
  auto const again = options_from_json(json::parse(options_to_json(o).dump()), "x");
  CHECK(again.lora() == o.lora());
  CHECK(again.merge);
  CHECK(again.adapter == o.adapter);
  CHECK(options_to_json(o)["lora-targets"] == "q_proj,v_proj");
  experiment_options named;
  set_option(named, "merge", "");
  CHECK(named.merge);
  CHECK_THROWS_WITH(set_option(o, "lora-targets", "q_proj,q_proj"), ATMANRL_CONTAINS("--lora-targets"));
  // Which matrices there are, the model's block says.
  o.lora_targets = {"embed"};
  CHECK_THROWS_WITH(
      resolved(o.lora(), lora_matrices(random_config(), standard_kind(random_config())), "--lora-targets"),
      ATMANRL_CONTAINS("--lora-targets") && ATMANRL_CONTAINS("embed"));
  CHECK_THROWS_WITH(set_option(o, "merge", "yes"), ATMANRL_CONTAINS("true or false"));
  experiment_options none;
  none.merge = true;
  CHECK_THROWS_WITH(validate(none), ATMANRL_CONTAINS("--merge needs adapters"));
  none.lora_rank = -1;
  CHECK_THROWS_WITH(validate(none), ATMANRL_CONTAINS("--lora-rank is -1"));
}

}  // namespace lora_run_test
