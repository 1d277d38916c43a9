#pragma once
/// \file
/// An umbrella.
#include <atmanrl/rl/trainer.hpp>
