#include <atmanrl/core/scalar.hpp>
#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/io/safetensors.hpp>
#include <atmanrl/nn/blocks.hpp>

#include <cmath>
#include <map>

#include "program.hpp"

using namespace atmanrl_test;
namespace model_verbs_test {

using atmanrl::json;

namespace {

std::map<std::string, std::vector<float>> tensors_of(std::filesystem::path const& path) {
  std::map<std::string, std::vector<float>> out;
  atmanrl::safetensors_file const file(path);
  for (auto const& t : file.tensors()) {
    auto& values = out[t.name];
    values.resize(std::size_t(t.size()));
    to_float(t, 0, values);
  }
  return out;
}

std::vector<double> widened(std::vector<float> const& v) { return {v.begin(), v.end()}; }

/// log softmax of one row of logits.
std::vector<double> log_softmax(std::vector<float> const& logits, std::size_t row, std::size_t vocab) {
  std::vector<double> p(logits.begin() + std::ptrdiff_t(row * vocab),
                        logits.begin() + std::ptrdiff_t((row + 1) * vocab));
  double sum = 0;
  for (double const x : p) sum += std::exp(x);
  for (double& x : p) x -= std::log(sum);
  return p;
}

}  // namespace

TEST_CASE("inspect logprobs: probabilities and argmax are those of transformers") {
  std::string const model = GENERATE("tied", "untied", "qwen2"), backend = GENERATE("cpu", "reference");
  CAPTURE(model, backend);
  auto const logits = tensors_of(fixture("llama") / (model + ".logits.safetensors")).at("logits");
  auto const expected = json_fixture("llama/" + model + ".json");
  std::size_t row = 0;
  for (json const& ids : expected["sequences"]) {
    auto const got = inspect_json(
        {"logprobs", "--model", model_fixture(model), "--ids", comma_separated(ids), "--backend", backend});
    std::vector<double> log_p, argmax;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      auto const p = log_softmax(logits, row + i, 97);
      log_p.push_back(p[ids[i + 1].get<std::size_t>()]);
      argmax.push_back(double(std::max_element(p.begin(), p.end()) - p.begin()));
    }
    row += ids.size();
    double const far = distance(numbers(got["logprobs"]), log_p);
    CHECK(far >= 0);
    CHECK(far < 1e-4);
    CHECK(numbers(got["argmax"]) == argmax);
    CHECK(got.size() == 2);
  }
  REQUIRE(row * 97 == logits.size());
}

TEST_CASE("inspect gradient: every parameter's gradient is PyTorch's, under its Hugging Face name and in its shape") {
  std::string const model = GENERATE("tied", "untied", "qwen2"), backend = GENERATE("cpu", "reference");
  CAPTURE(model, backend);
  scratch_folder const folder;
  auto const expected = json_fixture("llama/" + model + ".json");
  // The fixture's loss is the mean over the predicted tokens of all sequences, the program's over those of one.
  std::map<std::string, std::vector<double>> sum;
  double loss = 0, tokens = 0;
  for (json const& ids : expected["sequences"]) {
    double const n = double(ids.size()) - 1;
    if (n == 0) continue;
    std::string const out = folder / "gradient.safetensors";
    auto const got = inspect_json({"gradient", "--model", model_fixture(model), "--ids", comma_separated(ids), "--out",
                                   out, "--backend", backend});
    loss += n * got["loss"].get<double>();
    tokens += n;
    double squares = 0;
    for (auto const& [name, values] : tensors_of(out)) {
      auto& s = sum[name];
      s.resize(values.size());
      for (std::size_t i = 0; i < values.size(); ++i) {
        s[i] += n * double(values[i]);
        squares += double(values[i]) * double(values[i]);
      }
    }
    CHECK(got["gradient_norm"].get<double>() == Approx(std::sqrt(squares)).epsilon(1e-6));
    atmanrl::safetensors_file const written(out), wanted(fixture("llama") / (model + ".gradient.safetensors"));
    for (auto const& t : wanted.tensors()) {
      REQUIRE(written.find(t.name) != nullptr);
      CHECK(written.find(t.name)->shape == t.shape);
    }
  }
  CHECK(loss / tokens == Approx(expected["loss"].get<double>()).epsilon(1e-6));
  auto const wanted = tensors_of(fixture("llama") / (model + ".gradient.safetensors"));
  CHECK(sum.size() == wanted.size());
  for (auto const& [name, values] : wanted) {
    CAPTURE(name);
    for (double& x : sum[name]) x /= tokens;
    double const far = distance(sum[name], widened(values));
    CHECK(far >= 0);
    CHECK(far < 1e-4 * largest(widened(values)));
  }
}

TEST_CASE("inspect mask: loss, gradient, mask, saliency and rewards are PyTorch's for both shapes and rows") {
  auto const all = json_fixture("llama/mask.json");
  std::string const backend = GENERATE("cpu", "reference");
  for (json const& c : all["cases"]) {
    json const& r = all["rollouts"][c["rollout"].get<std::size_t>()];
    CAPTURE(backend, c["shape"], c["rows"], c["scale"], c["rollout"]);
    auto const got = inspect_json({"mask",
                                   "--model",
                                   model_fixture(all["model"]),
                                   "--prompt-ids",
                                   comma_separated(r["prompt"]),
                                   "--cot-ids",
                                   comma_separated(r["cot"]),
                                   "--delimiter-ids",
                                   comma_separated(r["delimiter"]),
                                   "--answer-ids",
                                   comma_separated(r["answer"]),
                                   "--shape",
                                   c["shape"],
                                   "--rows",
                                   c["rows"],
                                   "--steps",
                                   all["steps"].dump(),
                                   "--lr",
                                   all["lr"].dump(),
                                   "--eps",
                                   all["eps"].dump(),
                                   "--init",
                                   all["init"].dump(),
                                   "--scale",
                                   c["scale"].dump(),
                                   "--sparsity",
                                   c["sparsity"].dump(),
                                   "--gradient",
                                   "--backend",
                                   backend});
    for (char const* const key : {"ce_unmasked", "ce_start", "ce_end"})
      CHECK(std::abs(got[key].get<double>() - c[key].get<double>()) < 1e-4);
    CHECK(std::abs(got["reward_re_enabled"].get<double>() - c["re_enabled"].get<double>()) < 1e-4);
    CHECK(std::abs(got["reward_as_printed"].get<double>() - c["as_printed"].get<double>()) < 1e-4);
    auto const near = [&](char const* key, double tolerance) {
      CAPTURE(key);
      double const far = distance(numbers(got[key]), numbers(c[key]));
      CHECK(far >= 0);
      CHECK(far < tolerance);
    };
    near("gradient", 1e-4 * largest(numbers(c["gradient"])));
    near("mask", 2e-4);
    near("token_saliency", 5e-4);
    CHECK(got["mask"].size() == c["parameters"].get<std::size_t>());
  }
}

TEST_CASE("inspect mask: objective, sharing and reduction are those that are named") {
  auto const with = [](std::vector<std::string> more, char const* steps = "3") {
    more.insert(more.begin(), {"mask", "--model", model_fixture("tied"), "--prompt-ids", "5,6", "--cot-ids", "7,8,9",
                               "--delimiter-ids", "10", "--answer-ids", "11,12", "--shape", "column", "--gradient",
                               "--steps", steps});
    return inspect_json(more);
  };
  auto const shared = with({});
  CHECK(shared == with({"--objective", "cross_entropy", "--sharing", "all", "--reduction", "mean"}));
  // At equal values the gradient of a shared mask is the sum of those of the layers and heads.
  auto const one = numbers(shared["gradient"]);
  for (char const* const sharing : {"per_layer", "per_head"}) {
    auto const apart = numbers(with({"--sharing", sharing})["gradient"]);
    REQUIRE(apart.size() > one.size());
    REQUIRE(apart.size() % one.size() == 0);
    std::vector<double> sum(one.size());
    for (std::size_t i = 0; i < apart.size(); ++i) sum[i % one.size()] += apart[i];
    CHECK(distance(sum, one) < 1e-4 * largest(one));
  }
  CHECK(distance(numbers(with({"--objective", "excess_cross_entropy"})["gradient"]), one) == 0);
  CHECK(distance(numbers(with({"--objective", "kl_to_unmasked"})["gradient"]), one) > 1e-3 * largest(one));
  // At 0 the distributions are the same.
  CHECK(largest(numbers(with({"--objective", "kl_to_unmasked", "--init", "0"}, "0")["gradient"])) < 1e-6);
  auto const sum = with({"--reduction", "length_weighted"});
  double total = 0;
  for (double const s : numbers(sum["token_saliency"])) total += s;
  CHECK(sum["mask"] == shared["mask"]);
  CHECK(sum["reward_re_enabled"].get<double>() == Approx(total).epsilon(1e-6));
}

TEST_CASE("inspect mask: without options it is the paper's mask, 200 steps over all pairs of later rows") {
  std::vector<std::string> const rollout{"mask",      "--model", model_fixture("tied"), "--prompt-ids", "5,6",
                                         "--cot-ids", "7,8,9",   "--delimiter-ids",     "10",           "--answer-ids",
                                         "11,12"};
  auto const with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), rollout.begin(), rollout.end());
    return inspect_json(more);
  };
  auto const paper = with({});
  CHECK(paper["mask"].size() == 3 * 4 / 2 + 3 * (1 + 2 - 1));
  CHECK(paper.size() == 7);
  CHECK(paper == with({"--steps", "200", "--lr", "0.001", "--init", "-0.4", "--scale", "10", "--sparsity", "0", "--eps",
                       "1e-8", "--shape", "pair", "--rows", "all_later"}));
  CHECK(paper != with({"--eps", "1e-2"}));

  SECTION("no steps leave the mask at its start") {
    auto const start = with({"--steps", "0", "--gradient"});
    CHECK(numbers(start["mask"]) == std::vector<double>(12, -0.400000006));
    CHECK(start["ce_end"] == start["ce_start"]);
    CHECK(start["reward_re_enabled"].get<double>() == Approx(0).margin(1e-6));
    CHECK(start["reward_as_printed"].get<double>() == Approx(1));
    CHECK(largest(numbers(start["gradient"])) > 0);
  }
  SECTION("a start of 0 shows the gradient there, and no saliency") {
    auto const zero = with({"--steps", "0", "--gradient", "--init", "0"});
    CHECK(zero["ce_start"].get<double>() == Approx(zero["ce_unmasked"].get<double>()));
    CHECK(zero["ce_unmasked"].get<double>() == Approx(paper["ce_unmasked"].get<double>()));
    CHECK(zero["token_saliency"].is_null());
    CHECK(zero["reward_re_enabled"].is_null());
    CHECK(zero["gradient"].size() == 12);
    // Just below 0 the gradient is nearly the same: the derivative passes at equality.
    auto const below = with({"--steps", "0", "--gradient", "--init", "-1e-4"});
    CHECK(distance(numbers(zero["gradient"]), numbers(below["gradient"])) < 0.01 * largest(numbers(zero["gradient"])));
  }
}

TEST_CASE("inspect grpo: advantages, losses and gradient norm are PyTorch's, whatever the micro-batch") {
  auto const f = json_fixture("grpo/grpo.json");
  std::string const backend = GENERATE("cpu", "reference"), micro_batch = GENERATE("0", "1", "3");
  CAPTURE(backend, micro_batch);
  json groups = json::array();
  std::vector<double> advantages, token_losses;
  std::size_t completions = 0;
  for (json const& g : f["groups"]) {
    groups.push_back({{"prompt_ids", g["prompt_ids"]}, {"completions", g["completions"]}});
    for (json const& a : g["advantages"]) advantages.push_back(a);
    completions += g["completions"].size();
  }
  json const request{{"model", model_fixture(f["model"])},   {"groups", groups},  {"loss", "grpo"},
                     {"advantage", "mean_centered"},         {"clip", f["clip"]}, {"temperature", f["temperature"]},
                     {"micro_batch", std::stoi(micro_batch)}};
  scratch_folder const folder;
  std::string const out = folder / "gradient.safetensors";
  auto const got = inspect_json({"grpo", "--backend", backend, "--out", out}, request.dump());
  json const& step = f["steps"][0];
  CHECK(distance(numbers(got["advantages"]), advantages) < 1e-6);
  CHECK(got["advantages"].size() == completions);
  CHECK(std::abs(got["loss"].get<double>() - step["loss"].get<double>()) < 1e-5);
  CHECK(got["gradient_norm"].get<double>() == Approx(step["gradient_norm"].get<double>()).epsilon(1e-4));
  REQUIRE(got["token_losses"].size() == completions);
  REQUIRE(got["ratios"].size() == completions);
  for (std::size_t i = 0; i < completions; ++i) {
    double const far = distance(numbers(got["token_losses"][i]), numbers(step["token_losses"][i]));
    CHECK(far >= 0);
    CHECK(far < 1e-4);
    CHECK(distance(numbers(got["ratios"][i]), std::vector<double>(step["token_losses"][i].size(), 1.0)) < 1e-4);
  }
  double squares = 0;
  for (auto const& [name, values] : tensors_of(out))
    for (float const x : values) squares += double(x) * double(x);
  CHECK(std::sqrt(squares) == Approx(step["gradient_norm"].get<double>()).epsilon(1e-4));
}

TEST_CASE("inspect grpo: a narrow clip cuts off the tokens whose ratio has left it") {
  // One token per completion; the recorded log-probability is off by 0.1, so that the ratio is exp(0.1) or exp(-0.1).
  auto const p =
      numbers(inspect_json({"logprobs", "--model", model_fixture("tied"), "--ids", "3,4"})["logprobs"]).front();
  auto const q =
      numbers(inspect_json({"logprobs", "--model", model_fixture("tied"), "--ids", "3,5"})["logprobs"]).front();
  json request{{"model", model_fixture("tied")},
               {"clip", 0.05},
               {"clip_high", 0.2},
               {"groups",
                {{{"prompt_ids", {3}},
                  {"completions",
                   {{{"ids", {4}}, {"logprobs", {p - 0.1}}, {"reward", 1}},
                    {{"ids", {5}}, {"logprobs", {q + 0.1}}, {"reward", 0}}}}}}}};
  auto const losses = [&] {
    auto const got = inspect_json({"grpo"}, request.dump());
    return std::vector{got["token_losses"][0][0].get<double>(), got["token_losses"][1][0].get<double>()};
  };
  CHECK(losses()[0] == Approx(-0.5 * std::exp(0.1)).epsilon(1e-5));  // within 1.2
  CHECK(losses()[1] == Approx(0.5 * 0.95).epsilon(1e-5));            // below 0.95
  request.erase("clip_high");
  CHECK(losses()[0] == Approx(-0.5 * 1.05).epsilon(1e-5));
  request["clip"] = 0.2;
  CHECK(losses()[1] == Approx(0.5 * std::exp(-0.1)).epsilon(1e-5));
}

TEST_CASE("inspect grpo: every loss and advantage by name, a KL term and masked completions") {
  auto const p = numbers(inspect_json({"logprobs", "--model", model_fixture("tied"), "--ids", "3,4,6"})["logprobs"]);
  auto const q =
      numbers(inspect_json({"logprobs", "--model", model_fixture("tied"), "--ids", "3,5"})["logprobs"]).front();
  json const request{{"model", model_fixture("tied")},
                     {"groups",
                      {{{"prompt_ids", {3}},
                        {"completions",
                         {{{"ids", {4, 6}},
                           {"logprobs", {p[0] - 0.1, p[1]}},
                           {"reference_logprobs", {p[0] - 0.5, p[1]}},
                           {"reward", 1}},
                          {{"ids", {5}},
                           {"logprobs", {q + 0.1}},
                           {"reference_logprobs", {q}},
                           {"reward", 0},
                           {"truncated", true}}}}}}}};
  auto const with = [&](std::initializer_list<std::pair<char const*, json>> fields) {
    json r = request;
    for (auto const& [key, value] : fields) r[key] = value;
    return inspect_json({"grpo"}, r.dump());
  };
  double const up = std::exp(0.1), down = std::exp(-0.1), a = 0.5;
  auto const loss = [&](std::initializer_list<std::pair<char const*, json>> fields) {
    return with(fields)["loss"].get<double>();
  };
  CHECK(loss({{"loss", "grpo"}}) == Approx((-a * (up + 1) / 2 + a * down) / 2).epsilon(1e-4));
  for (char const* const name : {"bnpo", "dapo"})
    CHECK(loss({{"loss", name}}) == Approx((-a * (up + 1) + a * down) / 3).epsilon(1e-4));
  CHECK(loss({{"loss", "dr_grpo"}, {"max_tokens", 5}}) == Approx((-a * (up + 1) + a * down) / 10).epsilon(1e-4));
  CHECK(loss({{"loss", "gspo"}}) == Approx((-a * 1.0004 + a * 0.9997) / 2).epsilon(1e-4));
  CHECK(loss({{"loss", "cispo"}}) == Approx((-a * (up * p[0] + p[1]) + a * down * q) / 3).epsilon(1e-4));
  CHECK(loss({{"loss", "two_sided"}}) == Approx((-a * (up + 1) / 2 + a * down) / 2).epsilon(1e-4));
  CHECK(loss({{"ratio", "sequence"}, {"clip", 0.01}}) == Approx((-a * 1.01 + a * 0.99) / 2).epsilon(1e-4));
  CHECK(loss({{"loss", "dapo"}, {"mask_truncated", true}}) == Approx(-a * (up + 1) / 2).epsilon(1e-4));
  auto const kl = with({{"beta", 0.1}});
  CHECK(kl["kl"].get<double>() == Approx((std::exp(-0.5) + 0.5 - 1) / 3).epsilon(1e-4));
  CHECK(kl["loss"].get<double>() == Approx(loss({}) + 0.1 * (std::exp(-0.5) + 0.5 - 1) / 4).epsilon(1e-4));
  CHECK(with({{"beta", 0.1}, {"kl", "k1"}})["kl"].get<double>() == Approx(0.5 / 3).epsilon(1e-4));
  for (char const* const name : {"group_normalized", "batch_normalized", "gdpo"})
    CHECK(numbers(with({{"advantage", name}})["advantages"]).front() == Approx(std::sqrt(0.5)).epsilon(1e-3));
  CHECK(numbers(with({{"advantage", "leave_one_out"}})["advantages"]) == std::vector<double>{1, -1});
  json parts = request;
  for (json& c : parts["groups"][0]["completions"]) c.erase("reward");
  parts["groups"][0]["completions"][0]["reward_parts"] = {1, 0};
  parts["groups"][0]["completions"][1]["reward_parts"] = {0, 4};
  parts["reward_weights"] = {1, 0.5};
  CHECK(numbers(inspect_json({"grpo"}, parts.dump())["advantages"]) == std::vector<double>{-0.5, 0.5});
  parts["advantage"] = "gdpo";
  CHECK(numbers(inspect_json({"grpo"}, parts.dump())["advantages"]).front() > 0);
}

TEST_CASE("inspect grpo: rollouts straight from generate have ratios of exactly 1") {
  std::string const model = model_fixture("untied");
  json completions = json::array();
  for (int seed = 0; seed < 3; ++seed) {
    auto g = inspect_json({"generate", "--model", model, "--ids", "9,8,7,6,5", "--max-new-tokens", "20",
                           "--temperature", "0.8", "--seed", std::to_string(seed)});
    completions.push_back({{"ids", g["ids"]}, {"logprobs", g["logprobs"]}, {"reward", seed}});
  }
  json const request{{"model", model},
                     {"temperature", 0.8},
                     {"groups", {{{"prompt_ids", {9, 8, 7, 6, 5}}, {"completions", completions}}}}};
  auto const got = inspect_json({"grpo"}, request.dump());
  for (json const& row : got["ratios"])
    for (json const& ratio : row) CHECK(ratio == 1);
  CHECK(numbers(got["advantages"]) == std::vector<double>{-1, 0, 1});
}

TEST_CASE(
    "inspect generate: greedy tokens are the argmax of logprobs, and the recorded log-probabilities are its bits") {
  std::string const model = GENERATE("tied", "untied", "qwen2");
  auto const got =
      inspect_json({"generate", "--model", model_fixture(model), "--ids", "11,12,13", "--max-new-tokens", "30"});
  std::vector<int> all{11, 12, 13};
  for (json const& id : got["ids"]) all.push_back(id);
  REQUIRE(all.size() > 3);
  auto const scored = inspect_json({"logprobs", "--model", model_fixture(model), "--ids", comma_separated(all)});
  for (std::size_t i = 0; i < got["ids"].size(); ++i) {
    CHECK(got["ids"][i] == scored["argmax"][2 + i]);
    CHECK(got["logprobs"][i] == scored["logprobs"][2 + i]);
  }
  CHECK(got["text"].is_null());  // the folder has no tokenizer
}

TEST_CASE("inspect generate: the stop token ends a completion and is its last token") {
  int stopped = 0;
  for (int seed = 0; seed < 12; ++seed) {
    auto const got = inspect_json({"generate", "--model", model_fixture("tied"), "--ids", "2,3", "--max-new-tokens",
                                   "60", "--temperature", "4", "--seed", std::to_string(seed)});
    auto const ids = got["ids"].get<std::vector<int>>();
    REQUIRE(ids.size() == got["logprobs"].size());
    CHECK(std::find(ids.begin(), ids.end() - 1, 1) == ids.end() - 1);
    if (ids.back() == 1)
      ++stopped;
    else
      CHECK(ids.size() == 60);
  }
  CHECK(stopped > 0);
}

TEST_CASE("inspect generate: a seed fixes the tokens, top-k and top-p cut, temperature 0 is greedy") {
  auto const ids = [](std::vector<std::string> more) {
    std::vector<std::string> all{"generate",         "--model", model_fixture("tied"), "--ids", "40,41",
                                 "--max-new-tokens", "25"};
    all.insert(all.end(), more.begin(), more.end());
    return inspect_json(all)["ids"];
  };
  auto const greedy = ids({});
  CHECK(ids({"--temperature", "2", "--seed", "1"}) == ids({"--temperature", "2", "--seed", "1"}));
  CHECK(ids({"--temperature", "2", "--seed", "1"}) != ids({"--temperature", "2", "--seed", "2"}));
  CHECK(ids({"--temperature", "2", "--seed", "1"}) != greedy);
  CHECK(ids({"--temperature", "2", "--top-k", "1", "--seed", "1"}) == greedy);
  CHECK(ids({"--temperature", "2", "--top-p", "1e-6", "--seed", "1"}) == greedy);
}

TEST_CASE("inspect: the number of threads does not change a byte of the output") {
  json const group{{"prompt_ids", {1, 2, 3}},
                   {"completions",
                    {{{"ids", {4, 5, 6}}, {"logprobs", {-1, -2, -3}}, {"reward", 1}},
                     {{"ids", {7, 8}}, {"logprobs", {-4, -5}}, {"reward", 0}}}}};
  std::string const request = json{{"model", model_fixture("untied")}, {"groups", {group}}}.dump(),
                    model = model_fixture("untied");
  auto const with = [&](std::vector<std::string> arguments, char const* threads) {
    arguments.insert(arguments.end(), {"--threads", threads});
    return run_inspect(arguments, request).out;
  };
  std::vector<std::vector<std::string>> const calls{
      {"logprobs", "--model", model, "--ids", "1,2,3,4,5,6,7,8,9,10"},
      {"generate", "--model", model, "--ids", "1,2,3", "--max-new-tokens", "20", "--temperature", "1"},
      {"mask", "--model", model, "--prompt-ids", "1,2", "--cot-ids", "3,4,5", "--delimiter-ids", "6", "--answer-ids",
       "7,8", "--steps", "5"},
      {"grpo"}};
  for (auto const& call : calls) {
    CAPTURE(call.front());
    CHECK(!with(call, "1").empty());
    CHECK(with(call, "1") == with(call, "3"));
  }
}

TEST_CASE("inspect: --dtype bf16 is the model with its matrices rounded to bf16") {
  scratch_folder const folder;
  auto const file = atmanrl::model_file::open(model_fixture("untied"), atmanrl::standard_architectures());
  auto const rounded = [&](std::string_view name, atmanrl::index_t first, atmanrl::index_t count,
                           std::span<float> out) {
    file.read_rows(name, first, count, out);
    if (file.shape(name).size() == 2)
      for (float& x : out) x = atmanrl::bf16(x);
  };
  save_hugging_face_folder(folder / "rounded", file.config(), file.kind(), rounded, {.type = atmanrl::dtype::f32});
  std::string const backend = GENERATE("cpu", "reference");
  auto const log_p = [&](std::string const& model, char const* dtype) {
    return numbers(inspect_json({"logprobs", "--model", model, "--ids", "5,6,7,8,9,10,11", "--dtype", dtype,
                                 "--backend", backend})["logprobs"]);
  };
  auto const bf16 = log_p(model_fixture("untied"), "bf16");
  CHECK(distance(bf16, log_p(folder / "rounded", "f32")) < 1e-5);
  CHECK(distance(bf16, log_p(model_fixture("untied"), "f32")) > 1e-3);
}

TEST_CASE("inspect generate: stories260K tells its story from the begin-of-text token", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  std::string const model = *data / "tinyllamas/stories260K.bin", backend = GENERATE("cpu", "reference"),
                    dtype = GENERATE("f32", "bf16");
  CAPTURE(backend, dtype);
  // The exact bytes of the tokens: llama2.c itself drops the blank after the begin-of-text token.
  std::string const story =
      " Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw "
      "a "
      "big, red ball.";
  auto const from_ids = inspect_json(
      {"generate", "--model", model, "--ids", "1", "--max-new-tokens", "80", "--backend", backend, "--dtype", dtype});
  CHECK(from_ids["text"].get<std::string>().starts_with(story));
  CHECK(from_ids == inspect_json({"generate", "--model", model, "--prompt", "", "--max-new-tokens", "80", "--backend",
                                  backend, "--dtype", dtype}));
  // A vocabulary that does not lie beside the model.
  scratch_folder const folder;
  std::filesystem::copy_file(model, folder / "elsewhere.bin");
  std::vector<std::string> const alone{"generate",         "--model", folder / "elsewhere.bin", "--prompt", "Once upon",
                                       "--max-new-tokens", "6"};
  CHECK(inspect_complaint(alone).find("tok512.bin is not beside it") != std::string::npos);
  auto named = alone;
  named.insert(named.end(), {"--tokenizer", *data / "tinyllamas/tok512.bin"});
  CHECK(inspect_json(named)["text"] == " a time, there was a");
}

}  // namespace model_verbs_test
