#include <atmanrl/io/peft.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace peft_test {

TEST_CASE("peft: numbers that no adapter can have are refused at the start, for a list of targets and for all-linear") {
  for (json const& targets : {json("all-linear"), json::array({"q_proj", "v_proj"})}) {
    auto const with = [&](char const* field, json const& value) {
      json config{{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 8}, {"target_modules", targets}};
      config[field] = value;
      return complaint([&] { lora_config_from_peft(config, "adapter_config.json"); });
    };
    INFO(targets.dump());
    CHECK_FALSE(with("lora_alpha", 0.5));
    CHECK_FALSE(with("lora_dropout", 0.5));
    for (double const alpha : {0.0, -4.0})
      CHECK(contains(with("lora_alpha", alpha), "adapter_config.json: lora_alpha is"));
    for (double const dropout : {7.5, 1.0, -0.1})
      CHECK(contains(with("lora_dropout", dropout), "adapter_config.json: lora_dropout is"));
    CHECK(contains(with("r", 0), "adapter_config.json: r is 0"));
  }
}

TEST_CASE("peft: the path of a matrix may be given, but not one layer's") {
  auto const with = [](json const& targets) {
    json const config{{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 8}, {"target_modules", targets}};
    return lora_config_from_peft(config, "adapter_config.json");
  };
  CHECK(with({"self_attn.q_proj", "v_proj"}).targets == std::vector<std::string>{"q_proj", "v_proj"});
  auto const refused = [&](json const& targets, std::string const& path) {
    return contains(complaint([&] { with(targets); }),
                    "adapter_config.json: target_modules holds \"" + path + "\", which is of one layer");
  };
  CHECK(refused({"layers.1.self_attn.q_proj", "v_proj"}, "layers.1.self_attn.q_proj"));
  CHECK(refused({"v_proj", "model.layers.0.self_attn.q_proj"}, "model.layers.0.self_attn.q_proj"));
  CHECK(refused({"0.self_attn.q_proj", "1.self_attn.q_proj"}, "0.self_attn.q_proj"));
  CHECK(refused({"v_proj", "3.q_proj"}, "3.q_proj"));
}

TEST_CASE("peft: a list of names is bounded before the names are compared with each other") {
  json config{{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 8}, {"target_modules", json::array()}};
  for (int i = 0; i < 2000; ++i) config["target_modules"].push_back(fmt::format("p{}", i));
  CHECK(contains(complaint([&] { lora_config_from_peft(config, "adapter_config.json"); }),
                 "adapter_config.json: target_modules lists 2000 names, more than 1024"));
}

}  // namespace peft_test
