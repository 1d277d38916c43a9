#pragma once
// The models that configurations and weights are read for.
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/blocks.hpp>

#include "fuzz/harness.hpp"

namespace atmanrl_fuzz {

inline atmanrl::architectures const& all_architectures() {
  static atmanrl::architectures const known = [] {
    auto all = atmanrl::standard_architectures();
    auto const more = atmanrl::architectures_of<atmanrl::gemma2_block>();
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }();
  return known;
}

inline constexpr std::string_view sound_config =
    R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","num_hidden_layers":1,"hidden_size":4,)"
    R"("intermediate_size":2,"vocab_size":300,"num_attention_heads":2,"num_key_value_heads":1,)"
    R"("max_position_embeddings":4})";

/// All values of all tensors of a model, and single rows.
inline void read_everything(atmanrl::model_file const& model) {
  std::vector<float> values;
  for (auto const& t : model.tensors()) {
    std::size_t size = 1;
    for (auto const extent : t.shape) size *= std::size_t(extent);
    values.resize(size);
    model.read(t.name, values);
    model.read_rows(t.name, t.shape.front() - 1, 1,
                    std::span(values).first(t.shape.size() == 1 ? 1 : std::size_t(t.shape.back())));
  }
}

}  // namespace atmanrl_fuzz
