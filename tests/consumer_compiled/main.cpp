// A user's program that links the compiled library: the headers show it declarations, and what it calls is found.
#include <atmanrl/experiment.hpp>

#include <cmath>
#include <cstdio>

#if !defined(ATMANRL_COMPILED) || ATMANRL_BODIES
#  error "linking atmanrl::compiled must hide the bodies of its functions"
#endif

int main() {
  int passed = 0;

  // A template of the library: all weights are 0, so every token has the probability 1 / 7 and the first one is drawn.
  atmanrl::cpu_backend backend;
  atmanrl::model_config const config{
      .layers = 1, .hidden = 32, .heads = 2, .kv_heads = 1, .head_dim = 16, .ffn = 32, .vocab = 7, .max_positions = 16};
  atmanrl::llama<atmanrl::cpu_backend> model(backend, config);
  std::vector<std::vector<int>> const prompts{{1, 2}};
  auto const drawn =
      atmanrl::generate(model, std::span(prompts), {.group_size = 1, .max_new_tokens = 3}, atmanrl::samplers::greedy{});
  auto const& first = drawn.front().front();
  passed += first.ids == std::vector{0, 0, 0} && std::abs(first.log_probs[2] + std::log(7.0)) < 1e-6;

  // Functions of it.
  atmanrl::experiment_options options;
  atmanrl::set_option(options, "steps", "12");
  passed += atmanrl::options_to_json(options)["steps"] == 12;
  try {
    atmanrl::tokenizer::load("nowhere.gguf");
  } catch (atmanrl::file_error const& e) {
    passed += std::string(e.what()) == "nowhere.gguf: there is no such file";
  }

  std::printf("consumer: %d of 3 checks passed\n", passed);
  return passed == 3 ? 0 : 1;
}
