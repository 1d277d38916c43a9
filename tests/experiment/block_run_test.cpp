// Runs of models of one's own making: a block, and an edit that the model holds, by traits alone.
#include <atmanrl/experiment/experiment.hpp>

#include "catch.hpp"
#include "run_setting.hpp"
#include "strangers.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace block_run_test {
namespace {

/// A penalty on distance whose slope is learned, one for each layer.
struct slopes {
  struct params_type {
    int layers;
    index_t parameter(score_site at) const { return at.layer < layers ? at.layer : -1; }
    template <class T>
    T operator()(T score, T slope, score_site at) const {
      return score - slope * float(at.query - at.key);
    }
  };
  int layers = 2;
  params_type params() const { return {layers}; }
  index_t parameter_count() const { return layers; }
};

struct own_model : gsm8k_traits<> {
  using block = strangers::offset_block;
  using attention = slopes;
  using update_edit = strangers::short_sight;
  static update_edit make_update_edit(experiment_options const& o) { return {.reach = o.group_size}; }
  using reward = rewards::weighted_sum<rewards::correct_answer, rewards::saliency<>>;
};
using own_decoder = detail::model_of_traits<own_model, float>::type;

}  // namespace

TEST_CASE(
    "experiment: a block and a trainable edit of one's own are trained, mask-trained, resumed, evaluated and saved") {
  scratch_folder const folder;
  model_config c = random_config();
  c.architecture = "offset";
  write_random_model(folder / "model", c, 0.3, own_decoder::kind_of(c));
  experiment_options o = short_run(folder / "model", folder / "whole");
  o.saliency_weight = 1;  // a random model's answers are all wrong, so that the saliency alone must teach
  REQUIRE(experiment<own_model>{o}.run() == 0);
  CHECK(count_lines(o.out / "metrics.jsonl") == 3);
  CHECK(content(o.out / "model" / "config.json").find("OffsetForCausalLM") != std::string::npos);

  cpu_backend backend({.threads = 1});
  auto const start = own_decoder::load(backend, o.model), end = own_decoder::load(backend, o.out / "model");
  auto const values = [&](own_decoder const& m, std::string_view name) {
    parameter_info const& p = *m.layout().find(name);
    tensor<cpu_backend, float, 2> rows(backend, {p.rows, p.columns});
    m.read_rows(p, 0, rows.view());
    return rows.to_host();
  };
  for (char const* const name : {"model.layers.1.self_attn.offset_norm.weight", "model.layers.0.mlp.gate_proj.weight"})
    CHECK(values(start, name) != values(end, name));
  // The slopes have a file of their own beside the model's, with the checkpoint's numbers.
  auto const weights = load_checkpoint(o.out / "checkpoints" / "step-000003.checkpoint").arrays.at("weights");
  parameter_info const& edit = *end.layout().find("attention_edit");
  REQUIRE(edit.size() == 2);
  CHECK(weights[std::size_t(edit.offset)] != 0);
  CHECK(values(start, "attention_edit") == std::vector<float>(2));
  CHECK(values(end, "attention_edit") ==
        std::vector<float>(weights.begin() + edit.offset, weights.begin() + edit.offset + 2));

  // As if it had been killed in step 3.
  auto const cut = folder / "cut";
  std::filesystem::copy(o.out, cut, std::filesystem::copy_options::recursive);
  std::filesystem::remove(cut / "checkpoints" / "step-000003.checkpoint");
  std::filesystem::remove_all(cut / "model");
  std::filesystem::remove(cut / "evaluation_after.json");
  REQUIRE(experiment<own_model>{stored_options(cut)}.run() == 0);
  for (char const* const name : {"metrics.jsonl", "completions.jsonl", "evaluation_after.json",
                                 "model/model.safetensors", "model/attention_edit.safetensors"}) {
    INFO(name);
    CHECK((content(o.out / name) == content(cut / name)));
  }

  // A program of the standard models knows nothing of it.
  experiment_options wrong = short_run(folder / "model", folder / "wrong");
  CHECK_THROWS_WITH(experiment<gsm8k_traits<>>{wrong}.run(), ATMANRL_CONTAINS("OffsetForCausalLM"));
  CHECK_FALSE(std::filesystem::exists(folder / "wrong"));
}

}  // namespace block_run_test
