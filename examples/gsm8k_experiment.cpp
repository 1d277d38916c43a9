// The whole experiment on the highest tier: traits name the parts, options the numbers. --help lists the options.
#include "command_line.hpp"

int main(int argc, char** argv) {
  return run_program([&] {
    auto const options = parse_command_line(argc, argv, "GRPO with the AtManRL saliency reward on word problems");
    return atmanrl::experiment<atmanrl::gsm8k_traits<>>{options}.run();
  });
}
