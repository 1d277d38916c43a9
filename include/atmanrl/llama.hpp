#pragma once

/// \file
/// Llama models and their tokenizers on the CPU and on the reference backend.

#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/llama.hpp>
#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/tokenizer.hpp>
