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
namespace atmanrl::inline ATMANRL_ABI {
ATMANRL_TEMPLATE class kv_cache<cpu_backend, float>;
ATMANRL_TEMPLATE class forward_pass<cpu_backend, float>;
ATMANRL_TEMPLATE class decoder_layer<cpu_backend, float, standard_block>;
ATMANRL_TEMPLATE class decoder_weights<cpu_backend, float, standard_block>;
ATMANRL_TEMPLATE class decoder<cpu_backend>;
}  // namespace atmanrl::inline ATMANRL_ABI
#endif
