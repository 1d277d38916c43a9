// The functions of atmanrl::compiled that are no templates.
#define ATMANRL_DEFINE_FUNCTIONS
#include <atmanrl/experiment.hpp>
#include <atmanrl/tasks/mmlu.hpp>

void atmanrl::detail::compiled_library_made_for(instructions_of_program<cpu::compiled_for()>) {}
