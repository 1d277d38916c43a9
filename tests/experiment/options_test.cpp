#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/experiment/option_names.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/run_folder.hpp>
#include <atmanrl/experiment/traits_parts.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace atmanrl;
namespace options_test {

using atmanrl_test::complaint;
using atmanrl_test::contains;

TEST_CASE("options: the paper preset has the printed settings") {
  auto const o = experiment_options::of_preset(experiment_preset::paper);
  CHECK(o.mask.shape == mask_shape::pair);
  CHECK(o.mask.rows == mask_rows::all_later);
  CHECK(o.mask.init == -0.4);
  CHECK(o.mask.scale == 10);
  CHECK(o.mask.clamp == 0);
  CHECK(o.mask.steps == 200);
  CHECK(o.mask.learning_rate == 1e-3);
  CHECK(o.mask.optimizer.beta1 == 0.6);
  CHECK(o.mask.optimizer.beta2 == 0.9999);
  CHECK(o.mask.optimizer.eps == 1e-8);
  CHECK(o.mask.optimizer.weight_decay == 0.05);
  CHECK(o.mask.sparsity == 0);
  CHECK(o.mask.objective.name == "cross_entropy");
  CHECK(o.mask.label == mask_label::ground_truth);
  CHECK(o.mask.sharing == mask_sharing::all);
  CHECK(o.mask.layers.empty());
  CHECK_FALSE(o.mask.stop_tolerance.has_value());
  CHECK(o.mask.reduction == saliency_reduction::mean);
  CHECK(o.saliency_gate == rewards::gate_choice::none);
  CHECK(o.saliency_estimator == "learned_mask");
  CHECK(o.direction == saliency_direction::re_enabled);
  CHECK(o.saliency_weight == 1.0);
  CHECK(o.no_delimiter == no_delimiter_policy::skip);
  CHECK(o.prompts_per_step == 8);
  CHECK(o.group_size == 8);
  CHECK(o.max_new_tokens == 1024);
  CHECK(o.learning_rate == 1e-6);
  CHECK(o.lr_schedule == "constant");
  CHECK(o.lr_warmup == 0);
  CHECK(o.inner_passes == 2);
  CHECK(o.max_gradient_norm == 1);
  CHECK(o.temperature == 1);
}

TEST_CASE("options: the demo preset has the settings that were found to work and is the default") {
  experiment_options const o;
  CHECK(options_to_json(o) == options_to_json(experiment_options::of_preset(experiment_preset::demo)));
  CHECK(o.mask.shape == mask_shape::column);
  CHECK(o.mask.rows == mask_rows::answer_rows);
  CHECK(o.mask.scale == 0);
  CHECK(o.mask.init == -0.4);
  CHECK(o.mask.sparsity == 0.1);
  CHECK(o.mask.steps == 20);
  CHECK(o.mask.learning_rate == 1e-2);
  CHECK(o.learning_rate == 2e-5);
  CHECK(o.lr_warmup == 10);
  CHECK(o.prompts_per_step == 8);
  CHECK(o.group_size == 8);
  CHECK(o.inner_passes == 2);
  CHECK_FALSE(o.saliency_weight.has_value());
  CHECK(o.saliency_share == 0.5);
}

TEST_CASE("options: every option can be set from text and comes back from JSON with all its digits") {
  experiment_options o = experiment_options::of_preset(experiment_preset::paper);
  for (auto const& [name, text] :
       std::initializer_list<std::pair<char const*, char const*>>{{"preset", "paper"},
                                                                  {"model", "a/b"},
                                                                  {"task", "gsm8k"},
                                                                  {"data", "d"},
                                                                  {"few-shot", "3"},
                                                                  {"steps", "11"},
                                                                  {"prompts-per-step", "5"},
                                                                  {"group-size", "6"},
                                                                  {"max-new-tokens", "77"},
                                                                  {"temperature", "0.7"},
                                                                  {"mask-steps", "9"},
                                                                  {"mask-shape", "column"},
                                                                  {"mask-rows", "answer_rows"},
                                                                  {"mask-lr", "0.012345678901234567"},
                                                                  {"mask-init", "-0.3"},
                                                                  {"mask-scale", "auto"},
                                                                  {"mask-sparsity", "0.2"},
                                                                  {"mask-objective", "kl_to_unmasked"},
                                                                  {"mask-label", "only_correct"},
                                                                  {"mask-sharing", "per_head"},
                                                                  {"mask-layers", "0,2,11"},
                                                                  {"mask-lower-clamp", "-1.25"},
                                                                  {"mask-eps", "1e-3"},
                                                                  {"mask-stop-tolerance", "0.01"},
                                                                  {"mask-reduction", "token_mean"},
                                                                  {"saliency-estimator", "leave_one_out"},
                                                                  {"saliency-gate", "correct"},
                                                                  {"saliency-weight", "auto"},
                                                                  {"saliency-share", "0.25"},
                                                                  {"saliency-direction", "as_printed"},
                                                                  {"no-delimiter", "force"},
                                                                  {"lr", "3e-5"},
                                                                  {"inner-passes", "4"},
                                                                  {"max-gradient-norm", "0.5"},
                                                                  {"seed", "18446744073709551615"},
                                                                  {"threads", "2"},
                                                                  {"dtype", "bf16"},
                                                                  {"lr-schedule", "cosine"},
                                                                  {"lr-warmup", "2"},
                                                                  {"optimizer", "muon"},
                                                                  {"optimizer-beta1", "0.95"},
                                                                  {"optimizer-beta2", "0.99"},
                                                                  {"optimizer-eps", "1e-6"},
                                                                  {"momentum", "0.8"},
                                                                  {"nesterov", "false"},
                                                                  {"weight-decay", "0.1"},
                                                                  {"advantage", "gdpo"},
                                                                  {"loss", "dapo"},
                                                                  {"ratio", "sequence"},
                                                                  {"clip-low", "0.1"},
                                                                  {"clip-high", "0.30000000000000004"},
                                                                  {"clip-delta", "5"},
                                                                  {"kl", "k1"},
                                                                  {"beta", "0.04"},
                                                                  {"entropy-bonus", "0.01"},
                                                                  {"mask-truncated", "true"},
                                                                  {"dynamic-sampling", "3"},
                                                                  {"reward-gradient", "joined"},
                                                                  {"reward-gradient-weight", "0.5"},
                                                                  {"reward-gradient-share", "0.25"},
                                                                  {"sampler", "greedy"},
                                                                  {"top-k", "7"},
                                                                  {"top-p", "0.9"},
                                                                  {"min-p", "0.05"},
                                                                  {"length-penalty", "100"},
                                                                  {"overlong-cache", "20"},
                                                                  {"validate-every", "7"},
                                                                  {"lora-rank", "4"},
                                                                  {"lora-alpha", "8"},
                                                                  {"lora-targets", "q_proj,v_proj"},
                                                                  {"adapter", "peft"},
                                                                  {"merge", "true"},
                                                                  {"kv-cache", "bf16"},
                                                                  {"recompute", "true"},
                                                                  {"gradient-memory", "layers"},
                                                                  {"gradient-sums-on-host", "true"},
                                                                  {"tf32", "true"},
                                                                  {"bf16-weight-gradients", "true"},
                                                                  {"split-weight-gradients", "on"},
                                                                  {"bf16-products", "amx_twin"},
                                                                  {"graphs", "off"},
                                                                  {"skinny-products", "on"},
                                                                  {"device", "1"},
                                                                  {"activation-mib", "100"},
                                                                  {"eval-questions", "12"},
                                                                  {"eval-samples", "3"},
                                                                  {"checkpoint-every", "4"},
                                                                  {"chat", "llama3.1"},
                                                                  {"system", ""},
                                                                  {"thinking", "off"},
                                                                  {"chat-date", "2025-01-31"},
                                                                  {"out", "o"}})
    set_option(o, name, text);
  CHECK(o.mask.scale == 0);
  CHECK(o.seed == 18446744073709551615u);
  CHECK(o.task == "gsm8k");
  CHECK(o.no_delimiter == no_delimiter_policy::force);
  CHECK(o.dtype == weight_dtype::bf16);
  CHECK_FALSE(o.saliency_weight.has_value());
  auto const back = options_from_json(json::parse(options_to_json(o).dump()), "options.json");
  CHECK(options_to_json(back) == options_to_json(o));
  CHECK(back.mask.learning_rate == 0.012345678901234567);
  CHECK(back.mask.objective.name == "kl_to_unmasked");
  CHECK(back.mask.label == mask_label::only_correct);
  CHECK(back.mask.sharing == mask_sharing::per_head);
  CHECK(back.mask.layers == std::vector{0, 2, 11});
  CHECK(back.mask.lower_clamp == -1.25);
  CHECK(back.mask.optimizer.eps == 1e-3);
  CHECK(back.mask.stop_tolerance == 0.01);
  CHECK(back.mask.reduction == saliency_reduction::token_mean);
  CHECK(back.saliency_estimator == "leave_one_out");
  CHECK(back.saliency_gate == rewards::gate_choice::correct);
  CHECK(back.chat == chat_options{.format = "llama3.1", .system = "", .thinking = "off", .date = "2025-01-31"});
  // The list above is complete: nothing is left as the preset has it.
  auto const before = options_to_json(experiment_options::of_preset(experiment_preset::demo)),
             after = options_to_json(o);
  std::set<std::string> const same_in_both{"mask-rows", "mask-shape", "mask-scale", "saliency-weight"};
  for (auto const& [name, value] : after.items())
    if (!same_in_both.contains(name)) CHECK((before[name] != value));
}

TEST_CASE("options: layers, floor and tolerance of the masks may be named or left out") {
  experiment_options o;
  auto const defaults = options_to_json(o);
  CHECK(defaults["mask-layers"] == "all");
  CHECK(defaults["mask-lower-clamp"] == "none");
  CHECK(defaults["mask-stop-tolerance"] == "none");
  for (auto const& [name, text] :
       {std::pair{"mask-layers", "3"}, {"mask-lower-clamp", "-2"}, {"mask-stop-tolerance", "0"}})
    set_option(o, name, text);
  auto const back = options_from_json(json::parse(options_to_json(o).dump()), "options.json");
  CHECK(back.mask.layers == std::vector{3});
  CHECK(back.mask.lower_clamp == -2);
  CHECK(back.mask.stop_tolerance == 0.0);
  for (auto const& [name, text] :
       {std::pair{"mask-layers", "all"}, {"mask-lower-clamp", "none"}, {"mask-stop-tolerance", "none"}})
    set_option(o, name, text);
  CHECK(options_to_json(o) == defaults);
}

TEST_CASE("options: a value that is shown as the default may be typed, and means what is there without it") {
  int typed = 0;
  for (auto const preset : {experiment_preset::demo, experiment_preset::paper}) {
    experiment_options const standard = experiment_options::of_preset(preset);
    experiment_options shown = standard;
    for_each_option(shown, [&](char const* name, auto&& value, char const*) {
      std::string const text = detail::option_text(detail::option_json(value));
      if (text.empty()) return;  // a path that is not there
      experiment_options o = standard;
      set_option(o, name, text);
      INFO("--" << name << " " << text);
      CHECK(options_to_json(o) == options_to_json(standard));
      ++typed;
    });
  }
  CHECK(typed > 150);
  experiment_options o;
  set_option(o, "system", "Be brief.");
  CHECK(contains(complaint<usage_error>([&] { check_same_run(o, {}, "run"); }),
                 "--system none contradicts the run in run, which was started with Be brief."));
  set_option(o, "system", "none");
  CHECK_FALSE(o.chat.system.has_value());
}

TEST_CASE("options: a value that cannot be is refused with the option's name and the value") {
  experiment_options o;
  auto const refusal = [&](char const* name, char const* text) {
    return complaint<usage_error>([&] { set_option(o, name, text); });
  };
  CHECK(contains(refusal("steps", "many"), "--steps is \"many\""));
  CHECK(contains(refusal("steps", "1.5"), "--steps is \"1.5\""));
  CHECK(contains(refusal("steps", "99999999999"), "--steps"));
  CHECK(contains(refusal("seed", "-1"), "--seed is \"-1\""));
  CHECK(contains(refusal("lr", "nan"), "--lr is \"nan\""));
  CHECK(contains(refusal("lr", ""), "--lr is \"\""));
  CHECK(contains(refusal("mask-shape", "square"), "pair, column"));
  CHECK(contains(refusal("mask-objective", "ce"), "cross_entropy, kl_to_unmasked, excess_cross_entropy"));
  CHECK(contains(refusal("mask-sharing", "none"), "all, per_layer, per_head"));
  CHECK(contains(refusal("mask-lower-clamp", "low"), "--mask-lower-clamp is \"low\", it must be a number or none"));
  CHECK(contains(refusal("mask-stop-tolerance", "auto"), "a number or none"));
  for (char const* const layers : {"", "2,1", "1,1", "-1", "0,", ",0", "0;1", "all,1"})
    CHECK(contains(refusal("mask-layers", layers), "--mask-layers is \""));
  CHECK(contains(refusal("saliency-estimator", "rollout"),
                 "learned_mask, leave_one_out, gradient, atman_suppression, gradient_x_input, attention_rollout"));
  CHECK(contains(refusal("saliency-gate", "wrong"), "none, correct"));
  CHECK(contains(refusal("task", "chess"), "arithmetic, leaked_answer, skipped_step, memorised, gsm8k, mmlu"));
  CHECK(contains(refusal("stepz", "1"), "there is no option --stepz"));

  auto const invalid = [&](auto&& change) {
    experiment_options bad;
    change(bad);
    return complaint<usage_error>([&] { validate(bad); });
  };
  CHECK_FALSE(invalid([](auto&) {}).has_value());
  CHECK(contains(invalid([](auto& x) { x.steps = 0; }), "--steps is 0"));
  CHECK(contains(invalid([](auto& x) { x.group_size = 1; }), "--group-size is 1"));
  CHECK(contains(invalid([](auto& x) { x.temperature = 0; }), "--temperature is 0"));
  for (double const temperature : {1e-40, 1e40, -1.0})
    CHECK(contains(invalid([&](auto& x) { x.temperature = temperature; }), "--temperature is"));
  CHECK_FALSE(invalid([](auto& x) { x.temperature = 0.01; }).has_value());
  CHECK(contains(invalid([](auto& x) { x.lora_rank = 2000000000; }), "--lora-rank is 2000000000"));
  CHECK(contains(invalid([](auto& x) { x.lora_alpha = 0; }), "--lora-alpha is 0"));
  CHECK(contains(invalid([](auto& x) { x.mask.init = 0; }), "--mask-init is 0"));
  CHECK(contains(invalid([](auto& x) { x.mask.lower_clamp = -0.3; }),
                 "--mask-lower-clamp is -0.3, but above --mask-init -0.4"));
  CHECK(contains(invalid([](auto& x) { x.mask.optimizer.eps = 0; }), "--mask-eps is 0"));
  CHECK(contains(invalid([](auto& x) { x.threads = -1; }), "--threads is -1"));
  // What the trainer and the masks check is named as the command line has it.
  CHECK(contains(invalid([](auto& x) { x.learning_rate = -1; }), "--lr is -1"));
  CHECK(contains(invalid([](auto& x) { x.mask.learning_rate = 0; }), "--mask-lr is 0"));
  CHECK(contains(invalid([](auto& x) { x.mask.stop_tolerance = NAN; }), "--mask-stop-tolerance is nan"));
  CHECK(contains(invalid([](auto& x) { x.dynamic_sampling_rounds = -1; }), "--dynamic-sampling is -1"));
  CHECK(contains(invalid([](auto& x) { x.reward_gradient.share = 0; }), "--reward-gradient-share is 0"));
  CHECK(contains(invalid([](auto& x) { x.overlong_cache = 161; }),
                 "--overlong-cache is 161, it must lie between 0 and --max-new-tokens, 160"));
  CHECK_FALSE(invalid([](auto& x) { x.overlong_cache = 160; }).has_value());
  CHECK(contains(invalid([](auto& x) { x.entropy_bonus = INFINITY; }), "--entropy-bonus is inf"));
}

TEST_CASE("options: a run may go on with other threads and gradients kept otherwise, but not with other steps") {
  experiment_options const stored;
  experiment_options given = stored;
  given.threads = 2;
  given.gradient = {gradient_memory::layers, true};
  CHECK_NOTHROW(check_same_run(stored, given, "run"));
  given.steps = 99;
  CHECK(contains(complaint<usage_error>([&] { check_same_run(stored, given, "run"); }),
                 "--steps 99 contradicts the run in run"));
}

TEST_CASE(
    "options: a file from before the chat options is read, and a system message may be missing, empty or any text") {
  json old = json::parse(options_to_json({}).dump());
  CHECK(old["chat"] == "auto");
  CHECK(old["system"].is_null());
  CHECK_FALSE(options_from_json(old, "o.json").chat.system.has_value());
  for (char const* const name : {"chat", "system", "thinking", "chat-date"}) old.erase(name);
  CHECK(options_from_json(old, "o.json").chat == chat_options{});
  for (char const* const text : {"", "null", "auto", "Be \"brief\".\n"}) {
    experiment_options o;
    set_option(o, "system", text);
    CHECK(options_from_json(json::parse(options_to_json(o).dump()), "o.json").chat.system == text);
  }
  experiment_options o;
  for (auto const& [name, text] : {std::pair{"chat", "alpaca"}, {"thinking", "maybe"}})
    CHECK(contains(complaint<usage_error>([&] { set_option(o, name, text); }),
                   fmt::format("--{} is \"{}\"", name, text)));
  o.chat.date = "today";
  CHECK(contains(complaint<usage_error>([&] { validate(o); }), "--chat-date is \"today\""));
}

TEST_CASE(
    "options: auto is what the backend makes of it, and a file from before the GPU's options means what was done") {
  experiment_options o;
  o.dtype = weight_dtype::bf16;
  CHECK(options_to_json(o)["bf16-weight-gradients"] == "auto");
  CHECK(detail::settled_for<cpu_backend>(o).bf16_weight_gradients == false);
  json old = json::parse(options_to_json(o).dump());
  old.erase("bf16-weight-gradients");
  old.erase("device");
  old.erase("graphs");
  old.erase("skinny-products");
  old.erase("split-weight-gradients");
  old.erase("bf16-products");
  auto const read = options_from_json(old, "o.json");
  CHECK(read.bf16_weight_gradients == false);  // gradients of weights were in float, whatever the weights
  CHECK_FALSE(read.split_weight_gradients);
  CHECK(read.bf16_products == "auto");
  CHECK(read.device == 0);
  CHECK_FALSE(read.skinny_products);

  // On a backend with the options of a GPU.
  struct device_like {
    struct options_type {
      int device;
      bool tf32, bf16_weight_gradients, skinny_products, graphs;
    };
    explicit device_like(options_type) {}
  };
  CHECK(detail::settled_for<device_like>(o).bf16_weight_gradients == true);
  o.bf16_weight_gradients = false;  // not to be had: their factors are bf16 already
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<device_like>(o); }),
                 "--bf16-weight-gradients is false, but"));
  o = {};
  CHECK(detail::settled_for<device_like>(o).bf16_weight_gradients == false);
  o.device = 1;
  CHECK(detail::settled_for<device_like>(o).device == 1);
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<cpu_backend>(o); }), "--device is 1"));
  o = {};
  set_option(o, "graphs", "off");
  CHECK(options_to_json(o)["graphs"] == "off");
  CHECK_FALSE(detail::settled_for<device_like>(o).graphs);
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<cpu_backend>(o); }), "--graphs is off"));
  CHECK(contains(complaint<usage_error>([&] { set_option(o, "graphs", "true"); }), "must be on or off"));
  o = {};
  set_option(o, "skinny-products", "on");
  CHECK(options_to_json(o)["skinny-products"] == "on");
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<device_like>(o); }), "it is for bf16 weights"));
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<cpu_backend>(o); }), "--skinny-products is for"));
  CHECK(contains(complaint<usage_error>([&] { check_same_run({}, o, "run"); }), "--skinny-products on contradicts"));
  o.dtype = weight_dtype::bf16;
  CHECK(detail::backend_options<device_like>(detail::settled_for<device_like>(o)).skinny_products);
  o = {};
  o.bf16_weight_gradients = true;
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<reference_backend>(o); }),
                 "--bf16-weight-gradients is for backends with matrix units"));
  // A run goes on on any device, and not with other roundings.
  experiment_options moved;
  moved.device = 3;
  moved.graphs = false;
  CHECK_NOTHROW(check_same_run({}, moved, "run"));
  CHECK(contains(complaint<usage_error>([&] { check_same_run({}, o, "run"); }),
                 "--bf16-weight-gradients true contradicts"));
  for (char const* const free : {"device", "graphs"}) CHECK_FALSE(options_of_checkpoint(moved).contains(free));
}

TEST_CASE("options: ways to compute on a CPU reach its backend, and are refused where they are not there") {
  experiment_options o;
  set_option(o, "bf16-products", "amx_twin");
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<cpu_backend>(o); }), "it is for bf16 weights"));
  o.dtype = weight_dtype::bf16;
  CHECK(detail::backend_options<cpu_backend>(detail::settled_for<cpu_backend>(o)).products == bf16_products::amx_twin);
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<reference_backend>(o); }),
                 "--bf16-products is for CPUs"));
  CHECK(contains(complaint<usage_error>([&] { check_same_run({}, o, "run"); }), "--dtype bf16 contradicts"));
  o.dtype = weight_dtype::f32;
  set_option(o, "split-weight-gradients", "on");
  CHECK(detail::backend_options<cpu_backend>(detail::settled_for<cpu_backend>(o)).gradients == weight_gradients::split);
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<reference_backend>(o); }),
                 "--split-weight-gradients is for CPUs"));
  o.bf16_weight_gradients = true;
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<cpu_backend>(o); }), "contradicts"));
  set_option(o, "split-weight-gradients", "off");
  CHECK(detail::backend_options<cpu_backend>(detail::settled_for<cpu_backend>(o)).gradients ==
        weight_gradients::rounded);
  set_option(o, "bf16-products", "floats");  // on any machine
  CHECK(contains(complaint<usage_error>([&] { detail::settled_for<cpu_backend>(o); }),
                 "need products by amx or amx_twin, not floats"));
  CHECK(
      contains(complaint<usage_error>([&] { set_option(o, "bf16-products", "fast"); }), "--bf16-products is \"fast\""));
}

TEST_CASE("options: a damaged options.json is refused with the file's name") {
  json whole = json::parse(options_to_json({}).dump());
  auto const refusal = [](json const& j) { return complaint([&] { options_from_json(j, "o.json"); }); };
  CHECK_FALSE(refusal(whole).has_value());
  json missing = whole, wrong = whole, extra = whole;
  missing.erase("steps");
  wrong["steps"] = "x";
  extra["colour"] = 1;
  CHECK(contains(refusal(missing), "o.json: steps is missing"));
  CHECK(contains(refusal(wrong), "o.json: --steps is \"x\""));
  CHECK(contains(refusal(extra), "o.json"));
  CHECK(contains(refusal(json::array()), "o.json"));
}

TEST_CASE("options: a part of one's own has an option that is set, stored and read like the others") {
  experiment_options o;
  o.own = {{"brevity-target", 80, "tokens above which a completion costs"}};
  CHECK_NOTHROW(check_own_options(o));
  CHECK(o.own_value("brevity-target") == 80);
  set_option(o, "brevity-target", "40.5");
  CHECK(o.own_value("brevity-target") == 40.5);
  auto const stored = json::parse(options_to_json(o).dump());
  CHECK(stored.at("brevity-target") == 40.5);
  auto const back = options_from_json(stored, "options.json", {{"brevity-target", 80, ""}});
  CHECK(back.own_value("brevity-target") == 40.5);
  experiment_options other = o;
  CHECK_NOTHROW(check_same_run(o, other, "run"));
  other.own[0].value = 40;
  CHECK_THROWS_WITH(check_same_run(o, other, "run"), ATMANRL_CONTAINS("brevity-target"));
}

TEST_CASE("options: names of one's own that are unknown, or taken already, are refused") {
  experiment_options o;
  CHECK_THROWS_WITH(o.own_value("brevity-target"), ATMANRL_CONTAINS("no option --brevity-target"));
  CHECK_THROWS_WITH(set_option(o, "brevity-target", "1"), ATMANRL_CONTAINS("--brevity-target"));
  o.own = {{"steps", 1, ""}};
  CHECK_THROWS_WITH(check_own_options(o), ATMANRL_CONTAINS("--steps"));
  o.own = {{"mine", 1, ""}, {"mine", 2, ""}};
  CHECK_THROWS_WITH(check_own_options(o), ATMANRL_CONTAINS("--mine"));
  o.own = {{"mine", 1, ""}};
  CHECK_THROWS_WITH(set_option(o, "mine", "much"), ATMANRL_CONTAINS("--mine"));
  // A run without the program's own options is not this program's.
  CHECK_THROWS_AS(options_from_json(json::parse(options_to_json(experiment_options{}).dump()), "options.json", o.own),
                  file_error);
}

}  // namespace options_test
