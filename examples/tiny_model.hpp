#pragma once
// The half-million-parameter models that programs train from scratch on the word problems of tasks/arithmetic.hpp.
#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

struct tiny_shape {
  int layers = 3, hidden = 128, heads = 8, kv_heads = 4, ffn = 344;
};

/// \throws usage_error when the numbers make no model
inline atmanrl::model_config tiny_config(tiny_shape const& s, atmanrl::tokenizer const& words) {
  atmanrl::model_config c;
  c.layers = s.layers;
  c.hidden = s.hidden;
  c.heads = s.heads;
  c.kv_heads = s.kv_heads;
  c.head_dim = s.hidden / s.heads;
  c.ffn = s.ffn;
  c.vocab = words.vocab_size();
  c.max_positions = 512;
  c.bos_id = words.bos();
  c.stop_ids = {words.eos()};
  validate(c, "the options");
  return c;
}

/// Gains 1; matrices normal with deviation 0.05, those that write to the residual stream divided by sqrt(2 layers).
inline std::vector<float> initial_weights(atmanrl::parameter_layout const& layout, atmanrl::index_t layers,
                                          std::uint64_t seed) {
  using namespace atmanrl;
  std::vector<float> weights(std::size_t(layout.size()), 1.0f);
  std::uint32_t number = 0;
  for (parameter_info const& p : layout.all()) {
    random_stream draw(random_key{.seed = seed, .step = 0x494e4954, .prompt = number++});
    if (p.is_vector()) continue;
    bool const writes = p.name.ends_with("o_proj.weight") || p.name.ends_with("down_proj.weight");
    double const deviation = writes ? 0.05 / std::sqrt(2.0 * double(layers)) : 0.05;
    for (index_t i = 0; i < p.size(); ++i) weights[std::size_t(p.offset + i)] = float(deviation * draw.normal());
  }
  return weights;
}

/// A model's weights, flat, in the order of its layout.
template <class Model>
std::vector<float> weights_of(Model& model) {
  using namespace atmanrl;
  using B = typename Model::backend_type;
  tensor<B, float, 1> flat(model.backend(), {model.layout().size()});
  for (parameter_info const& p : model.layout().all())
    model.read_rows(p, 0, view_on<B, float, 2>(flat.data() + p.offset, {p.rows, p.columns}));
  return flat.to_host();
}

template <class Model>
void assign_weights(Model& model, std::vector<float> const& weights) {
  atmanrl::tensor<typename Model::backend_type, float, 1> flat(model.backend(), {model.layout().size()});
  flat.assign(weights);
  model.assign(flat.cview());
}

/// A Hugging Face folder with the tokenizer and a README.md; it replaces one that is there.
template <class Model>
void save_tiny_model(std::filesystem::path const& out, Model& model, std::vector<float> const& weights,
                     atmanrl::tokenizer const& words, atmanrl::dtype type, std::string const& card) {
  using namespace atmanrl;
  std::filesystem::path const tokenizer_folder = out.string() + ".tokenizer";
  std::filesystem::create_directories(tokenizer_folder);
  words.save(tokenizer_folder);
  row_source const source = [&](std::string_view name, index_t first, index_t count, std::span<float> to) {
    for (parameter_info const& p : model.layout().all())
      if (p.name == name) {
        index_t const columns = p.is_vector() ? 1 : p.columns;
        std::copy_n(weights.begin() + p.offset + first * columns, count * columns, to.begin());
      }
  };
  save_hugging_face_folder(
      out, model.config(), model.kind(), source,
      {.type = type, .copy_files = tokenizer_files(tokenizer_folder), .text_files = {{"README.md", card}}});
  std::filesystem::remove_all(tokenizer_folder);
}
