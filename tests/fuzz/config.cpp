// config.json alone, and generation_config.json beside a sound config.json.
#include <atmanrl/io/hugging_face_config.hpp>
#include <atmanrl/nn/blocks.hpp>

#include "fuzz/models.hpp"

namespace atmanrl_fuzz::config_target {
namespace {

using namespace atmanrl;

void run(std::string const& input) {
  static scratch_file const file("config.json");
  accepted(file.text(), [&] {
    json const read = read_json_file(file.holding(input));
    model_config const c = parse_hugging_face_config(read, nullptr, all_architectures(), file.text());
    json const written = to_hugging_face_config(c, find_architecture(all_architectures(), c.architecture), "float32");
    promise(parse_hugging_face_config(written, nullptr, all_architectures(), file.text()).stop_ids == c.stop_ids,
            "what is written is read again");
    auto const divisors = rope_divisors(c);
    promise(index_t(divisors.size()) == c.head_dim / 2, "there is a rotary divisor for each pair");
    for (double const d : divisors) promise(d > 0, "rotary divisors are positive");
  });
}

void corpus(seeds& out) {
  for (char const* const name : {"blocks/gemma2", "blocks/llama_bias", "blocks/qwen3", "blocks/smollm3",
                                 "io/tiny_llama", "llama/qwen2", "llama/tied", "llama/untied"})
    out.fixture((std::string(name) + "/config.json").c_str());
}

void run_generation(std::string const& input) {
  static scratch_file const file("generation_config.json");
  static json const config = parse_json(sound_config, "config.json");
  static std::string const beside = (file.path().parent_path() / "config.json").string();
  accepted("config.json", [&] {
    json const read = read_json_file(file.holding(input));
    model_config const c = parse_hugging_face_config(config, &read, all_architectures(), beside);
    for (int const id : c.stop_ids) promise(id >= 0 && id < c.vocab, "stop ids are ids");
  });
}

void corpus_of_generation(seeds& out) {
  out.fixture("io/tiny_llama/generation_config.json");
  out.fixture("blocks/gemma2/generation_config.json");
  out.fixture("text/chat/turn_end_base/generation_config.json");
  out.add(R"({"eos_token_id":[1,2,2,3],"bos_token_id":0,"pad_token_id":null,"temperature":0.6,"top_p":0.9})");
}

registered const here{{.name = "config", .run = run, .corpus = corpus, .times = json_times}};
registered const generation{
    {.name = "generation_config", .run = run_generation, .corpus = corpus_of_generation, .times = json_times}};

}  // namespace
}  // namespace atmanrl_fuzz::config_target
