// The whole experiment on the highest tier: traits name the parts, options the numbers. --help lists the options;
// --backend cuda runs it on a GPU, mpirun or srun in several processes (docs/distributed.md).
#include <atmanrl/experiment.hpp>

#include "command_line.hpp"
#include "experiment_program.hpp"
#include "ranks.hpp"
#include "with_backend.hpp"

int main(int argc, char** argv) {
  return run_program([&] {
    auto const backend = take_backend(argc, argv);
    auto const options = parse_command_line(
        argc, argv, "GRPO with the AtManRL saliency reward on word problems (--backend cuda: on a GPU)");
    return run_on_ranks(argc, argv, [&](atmanrl::comm::any ranks) {
      return with_backend<experiment_program<atmanrl::gsm8k_traits>>("gsm8k_experiment", backend, options, ranks);
    });
  });
}
