#pragma once

/// \file
/// Llama models and their tokenizers on the CPU and on the reference backend.

#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/nn/prefix_tree_batch.hpp>
#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/tokenizer.hpp>

// What atmanrl::compiled holds of the above.
#if defined(ATMANRL_COMPILED)
#  define ATMANRL_TEMPLATES(TEMPLATE, W)          \
    TEMPLATE class decoder_layer<cpu_backend, W, standard_block>; \
    TEMPLATE class decoder<cpu_backend, W>;

namespace atmanrl {
ATMANRL_FLOAT_TEMPLATE class kv_cache<cpu_backend, float>;
ATMANRL_FLOAT_TEMPLATE class forward_pass<cpu_backend, float>;
ATMANRL_TEMPLATES(ATMANRL_FLOAT_TEMPLATE, float)
ATMANRL_TEMPLATES(ATMANRL_BF16_TEMPLATE, bf16)
}  // namespace atmanrl
#  undef ATMANRL_TEMPLATES
#endif
