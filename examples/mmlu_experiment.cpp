// The whole experiment on MMLU's multiple-choice questions: traits name the parts, options the numbers. --help lists
// them; --backend cuda runs it on a GPU.
#include <atmanrl/experiment.hpp>
#include <atmanrl/experiment/mmlu_traits.hpp>

#include "command_line.hpp"
#include "experiment_program.hpp"
#include "ranks.hpp"
#include "with_backend.hpp"

int main(int argc, char** argv) {
  return run_program([&] {
    auto const backend = take_backend(argc, argv);
    auto const options =
        parse_command_line(argc, argv, "GRPO with the AtManRL saliency reward on MMLU (--backend cuda: on a GPU)",
                           [](atmanrl::experiment_options& o) {
                             o.task = "mmlu";
                             o.model.clear();  // the bundled model knows nothing but its own word problems
                           });
    atmanrl::expects<atmanrl::usage_error>(
        !options.model.empty(),
        "--model is missing: a Hugging Face folder or a .gguf file (cmake/fetch_smollm2.sh fetches one)");
    return run_on_ranks(argc, argv, [&](atmanrl::comm::any ranks) {
      return with_backend<experiment_program<atmanrl::mmlu_traits>>("mmlu_experiment", backend, options, ranks);
    });
  });
}
