// The whole experiment on the highest tier: traits name the parts, options the numbers. --help lists the options;
// --backend cuda runs it on a GPU.
#include "command_line.hpp"
#include "gsm8k_experiment/on_cuda.hpp"

int main(int argc, char** argv) {
  return run_program([&] {
    auto const backend = take_backend(argc, argv);
    auto const options = parse_command_line(
        argc, argv, "GRPO with the AtManRL saliency reward on word problems (--backend cuda: on a GPU)");
    if (backend == "cuda") return run_on_cuda(options);
    return atmanrl::experiment<atmanrl::gsm8k_traits<>>{options}.run();
  });
}
