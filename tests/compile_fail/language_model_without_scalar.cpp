// expect: not a LanguageModel: it needs `using backend_type` \(a Backend\) and `using scalar`
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/samplers/greedy.hpp>

struct mine {
  void forward(std::vector<int> const& tokens);
};
void use(mine& model, std::span<std::vector<int> const> prompts) {
  generate(model, prompts, {}, atmanrl::samplers::greedy{});
}
