// Whole runs over a quantised file whose matrices stay packed.
#include <atmanrl/experiment/experiment.hpp>

#include "catch.hpp"
#include "quantised_model.hpp"
#include "run_setting.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace packed_run_test {
namespace {

struct setting {
  scratch_folder folder;
  std::filesystem::path model = folder / "model.gguf";
  setting() { write_quantised_model(model, quantised_config(), mixed_types); }
  experiment_options options(char const* name) const {
    experiment_options o = short_run(model, folder / name);
    o.lora_rank = 2;
    o.learning_rate = 1e-2;
    o.saliency_weight = 1;
    o.beta = 0.01;  // against the model with its adapters off
    return o;
  }
};

int run(experiment_options const& o) { return experiment<gsm8k_traits<>>{o}.run(); }

}  // namespace

TEST_CASE("experiment: a model that could not be saved at the end is refused at the start, where it is trained") {
  setting const s;
  model_config odd = quantised_config();
  odd.rope_scaling.factors.assign(std::size_t(odd.head_dim / 2), 2.0f);  // no rule of config.json says that
  write_quantised_model(s.model, odd, mixed_types);
  auto o = s.options("run");
  REQUIRE(run(o) == 0);  // only adapters are saved
  for (bool const merge : {true, false}) {
    o.out = s.folder / "refused";
    o.merge = merge;
    if (!merge) o.lora_rank = 0;
    CHECK(contains(complaint<usage_error>([&] { run(o); }), "rotary factors that follow no llama3 rule"));
    CHECK_FALSE(std::filesystem::exists(o.out));
  }
}

TEST_CASE(
    "experiment: adapters over a quantised file are trained to the same bytes packed, which is its default, and "
    "decoded") {
  setting const s;
  auto packed = s.options("packed"), decoded = s.options("decoded");
  packed.merge = decoded.merge = true;
  decoded.dtype = weight_dtype::f32;
  experiment<gsm8k_traits<>> program(packed);
  CHECK(program.options().dtype == weight_dtype::packed);
  REQUIRE(program.run() == 0);
  experiment<gsm8k_traits<>> program_of_decoded(decoded);
  REQUIRE(program_of_decoded.run() == 0);
  // The estimate knows the types of the file's matrices.
  auto const file = model_file::open(s.model, standard_architectures());
  auto const bytes_of_model = [&](weight_storage how) {
    cpu_backend backend({.threads = 1});
    auto const model = llama<cpu_backend>::load(backend, file, {}, how);
    return backend.allocated_bytes();
  };
  CHECK(program_of_decoded.estimate()->by_use[memory_use::weights] - program.estimate()->by_use[memory_use::weights] ==
        bytes_of_model(weight_storage::full) - bytes_of_model(weight_storage::packed));
  for (char const* const name :
       {"metrics.jsonl", "completions.jsonl", "evaluation_before.json", "evaluation_after.json",
        "adapter/adapter_model.safetensors", "model/model.safetensors"}) {
    INFO(name);
    CHECK((content(packed.out / name) == content(decoded.out / name)));
  }
  CHECK(read_json_file(packed.out / "options.json")["dtype"] == "packed");

  // Continued from its second step.
  std::filesystem::remove_all(packed.out / "checkpoints/step-000003.checkpoint");
  for (char const* const name : {"adapter", "model", "summary.txt", "evaluation_after.json"})
    std::filesystem::remove_all(packed.out / name);
  packed.resume = packed.out;
  REQUIRE(run(packed) == 0);
  for (char const* const name : {"metrics.jsonl", "adapter/adapter_model.safetensors"})
    CHECK((content(packed.out / name) == content(decoded.out / name)));
}

TEST_CASE("experiment: what cannot be packed is refused in a sentence, and is not packed where nothing is said") {
  setting const s;
  auto o = s.options("run");
  o.lora_rank = 0;
  CHECK(experiment<gsm8k_traits<>>{o}.options().dtype == weight_dtype::f32);
  o.dtype = weight_dtype::packed;
  CHECK_THROWS_WITH(run(o), ATMANRL_CONTAINS("packed weights are not trained, adapters are: add --lora-rank"));
  o = s.options("run");
  o.model = s.folder / "model";
  write_random_model(o.model, random_config());
  CHECK(experiment<gsm8k_traits<>>{o}.options().dtype == weight_dtype::f32);
  o.dtype = weight_dtype::packed;
  CHECK_THROWS_WITH(run(o), ATMANRL_CONTAINS("no GGUF file with quantised matrices"));
  using plain_traits = gsm8k_traits<reference_backend>;
  o.model = s.model;
  CHECK_THROWS_WITH(experiment<plain_traits>{o}, ATMANRL_CONTAINS("does not read the blocks of quantised files"));
  CHECK_FALSE(std::filesystem::exists(o.out));
}

}  // namespace packed_run_test
