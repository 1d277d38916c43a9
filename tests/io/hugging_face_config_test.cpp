#include <atmanrl/io/hugging_face_config.hpp>
#include <atmanrl/nn/blocks.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"
#include "test_data.hpp"

#include <functional>

using namespace atmanrl;
namespace hugging_face_config_test {

using atmanrl_test::complaint;
using atmanrl_test::contains;
using atmanrl_test::fixture;

namespace {

// The fields of Llama-3.2-3B-Instruct's config.json as Meta publishes them.
json llama_3_2_3b() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009], "head_dim": 128, "hidden_act": "silu", "hidden_size": 3072,
    "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
    "model_type": "llama", "num_attention_heads": 24, "num_hidden_layers": 28, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256})");
}

json in_new_spelling(json config) {
  config["rope_parameters"] = config["rope_scaling"];
  config["rope_parameters"]["rope_theta"] = config["rope_theta"];
  config["dtype"] = config["torch_dtype"];
  for (char const* key : {"rope_scaling", "rope_theta", "torch_dtype"}) config.erase(key);
  return config;
}

json qwen2_5() {
  return json::parse(R"({
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645,
    "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
    "max_position_embeddings": 32768, "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 14,
    "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})");
}

}  // namespace

TEST_CASE("hugging_face_config: Llama 3.2 3B reads the same in both spellings") {
  model_config const c = parse_hugging_face_config(llama_3_2_3b(), nullptr, standard_architectures(), "config.json");
  CHECK(c.architecture == "llama");
  CHECK(c.layers == 28);
  CHECK(c.hidden == 3072);
  CHECK(c.heads == 24);
  CHECK(c.kv_heads == 8);
  CHECK(c.head_dim == 128);
  CHECK(c.ffn == 8192);
  CHECK(c.vocab == 128256);
  CHECK(c.rope_theta == 500000);
  CHECK(c.rope_scaling.llama3);
  CHECK(c.rope_scaling.factor == 32);
  CHECK(c.rope_scaling.original_max_positions == 8192);
  CHECK(c.rms_eps == 1e-5);
  CHECK(c.tied_head);
  CHECK_FALSE(c.qkv_bias);
  CHECK(c.max_positions == 131072);
  CHECK(c.bos_id == 128000);
  CHECK(c.stop_ids == std::vector<int>{128001, 128008, 128009});
  CHECK(parse_hugging_face_config(in_new_spelling(llama_3_2_3b()), nullptr, standard_architectures(), "config.json") ==
        c);
}

TEST_CASE("hugging_face_config: Qwen 2 has biases and no scaling") {
  model_config const c = parse_hugging_face_config(qwen2_5(), nullptr, standard_architectures(), "config.json");
  CHECK(c.architecture == "qwen2");
  CHECK(c.qkv_bias);
  CHECK(c.head_dim == 64);
  CHECK_FALSE(c.rope_scaling.llama3);
  CHECK(c.stop_ids == std::vector<int>{151645});
  json newer = qwen2_5();
  newer["layer_types"] = std::vector<std::string>(24, "full_attention");
  CHECK(parse_hugging_face_config(newer, nullptr, standard_architectures(), "config.json") == c);
}

TEST_CASE("hugging_face_config: generation_config.json's stop ids go before those of config.json") {
  json const one = {{"eos_token_id", 7}}, list = {{"eos_token_id", {7, 9, 7}}}, none = json::object();
  CHECK(parse_hugging_face_config(llama_3_2_3b(), &one, standard_architectures(), "config.json").stop_ids ==
        std::vector<int>{7});
  CHECK(parse_hugging_face_config(llama_3_2_3b(), &list, standard_architectures(), "config.json").stop_ids ==
        std::vector<int>{7, 9});
  CHECK(parse_hugging_face_config(llama_3_2_3b(), &none, standard_architectures(), "config.json").stop_ids.size() == 3);
  json const bad = {{"eos_token_id", "x"}};
  CHECK(contains(
      complaint([&] { parse_hugging_face_config(llama_3_2_3b(), &bad, standard_architectures(), "m/config.json"); }),
      "m/generation_config.json: eos_token_id"));
}

TEST_CASE("hugging_face_config: what is missing has the defaults of transformers") {
  json small = llama_3_2_3b();
  for (char const* key : {"num_key_value_heads", "head_dim", "rope_scaling", "rope_theta", "tie_word_embeddings",
                          "rms_norm_eps", "max_position_embeddings", "hidden_act", "eos_token_id", "bos_token_id"}) {
    small.erase(key);
  }
  model_config const c = parse_hugging_face_config(small, nullptr, standard_architectures(), "config.json");
  CHECK(c.kv_heads == 24);
  CHECK(c.head_dim == 128);
  CHECK(c.rope_theta == 10000);
  CHECK(c.rms_eps == 1e-6);
  CHECK(c.max_positions == 2048);
  CHECK_FALSE(c.tied_head);
  CHECK(c.bos_id == -1);
  CHECK(c.stop_ids.empty());
}

TEST_CASE("hugging_face_config: what changes the result silently has each architecture's own default") {
  architectures known = architectures_of<smollm3_block>();
  known.push_back(architectures_of<gemma2_block>().front());
  auto const read = [&](json const& config) {
    return parse_hugging_face_config(config, nullptr, known, "config.json");
  };
  json smollm3 = read_json_file(fixture("blocks/smollm3/config.json"));
  for (char const* const key : {"rope_theta", "rope_parameters", "rope_scaling"}) smollm3.erase(key);
  CHECK(read(smollm3).rope_theta == 2000000);
  smollm3["rope_theta"] = 500;
  CHECK(read(smollm3).rope_theta == 500);

  json gemma2 = read_json_file(fixture("blocks/gemma2/config.json"));
  CHECK(read(gemma2).score_cap == 2);
  gemma2["attn_logit_softcapping"] = nullptr;  // says that there is none
  CHECK(read(gemma2).score_cap == 0);
  gemma2.erase("attn_logit_softcapping");
  CHECK(read(gemma2).score_cap == 50);
  gemma2.erase("final_logit_softcapping");
  CHECK(contains(complaint([&] { read(gemma2); }), "final_logit_softcapping is 30"));
}

TEST_CASE("hugging_face_config: a Llama's biases are read and written") {
  json biased = llama_3_2_3b();
  biased["attention_bias"] = biased["mlp_bias"] = true;
  model_config c = parse_hugging_face_config(biased, nullptr, standard_architectures(), "config.json");
  CHECK((c.qkv_bias && c.out_bias && c.mlp_bias));
  json const written = to_hugging_face_config(c, standard_kind(c), "float32");
  CHECK(parse_hugging_face_config(written, nullptr, standard_architectures(), "config.json") == c);
  c.out_bias = false;
  CHECK_THROWS_WITH(to_hugging_face_config(c, standard_kind(c), "float32"), ATMANRL_CONTAINS("attention_bias"));
}

TEST_CASE("hugging_face_config: every unsupported or wrong field is refused with the file's and the field's name") {
  struct fault {
    std::string field;
    std::function<void(json&)> make;
  };
  std::vector<fault> const faults{
      {"MistralForCausalLM", [](json& c) { c["architectures"] = {"MistralForCausalLM"}; }},
      {"architectures",
       [](json& c) {
         c["architectures"] = {"LlamaForCausalLM", "Other"};
       }},
      {"architectures", [](json& c) { c["architectures"] = 3; }},
      {"architectures is missing", [](json& c) { c.erase("architectures"), c.erase("model_type"); }},
      {"model_type", [](json& c) { c["model_type"] = "qwen2"; }},
      {"model_type \"mistral\"", [](json& c) { c["model_type"] = "mistral"; }},
      {"hidden_act", [](json& c) { c["hidden_act"] = "gelu"; }},
      {"hidden_act", [](json& c) { c["hidden_act"] = 1; }},
      {"attention_bias", [](json& c) { c["attention_bias"] = 1; }},
      {"mlp_bias", [](json& c) { c["mlp_bias"] = "no"; }},
      {"use_sliding_window", [](json& c) { c["use_sliding_window"] = true; }},
      {"layer_types",
       [](json& c) {
         c["layer_types"] = {"full_attention", "sliding_attention"};
       }},
      {"quantization_config",
       [](json& c) {
         c["quantization_config"] = {{"bits", 4}};
       }},
      {"partial_rotary_factor", [](json& c) { c["partial_rotary_factor"] = 0.5; }},
      {"rope_scaling.rope_type \"yarn\"", [](json& c) { c["rope_scaling"]["rope_type"] = "yarn"; }},
      {"rope_scaling.beta_fast", [](json& c) { c["rope_scaling"]["beta_fast"] = 1; }},
      {"rope_scaling.factor", [](json& c) { c["rope_scaling"].erase("factor"); }},
      {"rope_scaling.factor", [](json& c) { c["rope_scaling"]["factor"] = 0.5; }},
      {"rope_scaling.factor", [](json& c) { c["rope_scaling"]["factor"] = "32"; }},
      {"rope_scaling.rope_type is missing", [](json& c) { c["rope_scaling"].erase("rope_type"); }},
      {"rope_scaling.factor is not a known key", [](json& c) { c["rope_scaling"]["rope_type"] = "default"; }},
      {"low_freq_factor", [](json& c) { c["rope_scaling"]["low_freq_factor"] = 4; }},
      {"original_max_position_embeddings", [](json& c) { c["rope_scaling"]["original_max_position_embeddings"] = 0; }},
      {"rope_scaling is not a JSON object", [](json& c) { c["rope_scaling"] = "llama3"; }},
      {"disagree",
       [](json& c) {
         c["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 10000}};
       }},
      {"rope_theta", [](json& c) { c["rope_theta"] = 0; }},
      {"num_hidden_layers is missing", [](json& c) { c.erase("num_hidden_layers"); }},
      {"num_hidden_layers", [](json& c) { c["num_hidden_layers"] = 0; }},
      {"num_hidden_layers", [](json& c) { c["num_hidden_layers"] = 2.5; }},
      {"num_hidden_layers", [](json& c) { c["num_hidden_layers"] = 1000000; }},
      {"hidden_size", [](json& c) { c["hidden_size"] = -3072; }},
      {"hidden_size", [](json& c) { c["hidden_size"] = std::uint64_t(1) << 63; }},
      {"vocab_size", [](json& c) { c["vocab_size"] = std::int64_t(1) << 40; }},
      {"num_key_value_heads", [](json& c) { c["num_key_value_heads"] = 7; }},
      {"num_key_value_heads", [](json& c) { c["num_key_value_heads"] = 0; }},
      {"num_attention_heads", [](json& c) { c["num_attention_heads"] = 7, c.erase("head_dim"); }},
      {"head_dim", [](json& c) { c["head_dim"] = 127; }},
      {"rms_norm_eps", [](json& c) { c["rms_norm_eps"] = -1; }},
      {"bos_token_id", [](json& c) { c["bos_token_id"] = 128256; }},
      {"eos_token_id",
       [](json& c) {
         c["eos_token_id"] = {1, -1};
       }},
      {"eos_token_id", [](json& c) { c["eos_token_id"] = 999999; }},
      {"eos_token_id", [](json& c) { c["eos_token_id"] = std::uint64_t(1) << 40; }},
      {"not a JSON object", [](json& c) { c = json::array({1}); }},
  };
  for (auto const& f : faults) {
    json config = llama_3_2_3b();
    f.make(config);
    auto const text =
        complaint([&] { parse_hugging_face_config(config, nullptr, standard_architectures(), "dir/config.json"); });
    INFO(f.field << " -> " << text.value_or("(accepted)"));
    CHECK(contains(text, "dir/config.json: "));
    CHECK(contains(text, f.field));
  }
}

TEST_CASE("hugging_face_config: what is written reads back the same") {
  for (json const& original : {llama_3_2_3b(), qwen2_5()}) {
    model_config const c = parse_hugging_face_config(original, nullptr, standard_architectures(), "config.json");
    json const written = json::parse(to_hugging_face_config(c, standard_kind(c), "bfloat16").dump());
    CHECK(parse_hugging_face_config(written, nullptr, standard_architectures(), "config.json") == c);
    CHECK(written["torch_dtype"] == "bfloat16");
  }
  model_config odd = parse_hugging_face_config(llama_3_2_3b(), nullptr, standard_architectures(), "config.json");
  odd.rope_scaling = {};
  odd.rope_scaling.factors.assign(64, 2.0f);
  CHECK_THROWS_AS(to_hugging_face_config(odd, standard_kind(odd), "float32"), usage_error);
}

TEST_CASE("hugging_face_config: architectures alone name the model") {
  json config = llama_3_2_3b();
  config.erase("model_type");
  CHECK(parse_hugging_face_config(config, nullptr, standard_architectures(), "config.json").architecture == "llama");
  // What else is missing is said, whatever the fields that are there.
  CHECK(contains(complaint([&] {
                   parse_hugging_face_config(json{{"architectures", {"LlamaForCausalLM"}}}, nullptr,
                                             standard_architectures(), "config.json");
                 }),
                 "config.json: num_hidden_layers is missing"));
}

TEST_CASE("hugging_face_config: a list of end tokens has a bound, and a field that is right is never made a text of") {
  json const config = llama_3_2_3b();
  json generation{{"eos_token_id", json::array()}};
  for (int i = 0; i < 1024; ++i) generation["eos_token_id"].push_back(i);
  CHECK(parse_hugging_face_config(config, &generation, standard_architectures(), "config.json").stop_ids.size() ==
        1024);
  generation["eos_token_id"].push_back(1024);
  CHECK(contains(
      complaint([&] { parse_hugging_face_config(config, &generation, standard_architectures(), "config.json"); }),
      "eos_token_id lists 1025 token ids, more than 1024"));
  json const wrong{{"eos_token_id", json::array({1, std::string(5000, 'x')})}};
  auto const text =
      complaint([&] { parse_hugging_face_config(config, &wrong, standard_architectures(), "config.json"); });
  CHECK(contains(text, "eos_token_id is [1,\"xxx"));
  CHECK(text->size() < 300);
}

}  // namespace hugging_face_config_test
