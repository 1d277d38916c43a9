#pragma once

/// \file
/// Writes the trained model as a Hugging Face folder with its tokenizer, or its adapters as a PEFT folder.

#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/io/peft.hpp>
#include <atmanrl/rl/trainable_weights.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <algorithm>
#include <concepts>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

inline auto by_name(parameter_layout const& layout) {
  std::map<std::string, parameter_info const*, std::less<>> all;
  for (parameter_info const& p : layout.all()) all.emplace(p.name, &p);
  return [all = std::move(all)](std::string_view name) -> parameter_info const& {
    auto const at = all.find(name);
    expects<shape_error>(at != all.end(), "the model has no parameter {}", name);
    return *at->second;
  };
}

/// All master weights on the first rank: in the backend's memory where that has room for them, else in the host's.
template <class Model>
class gathered_master {
  using B = typename Model::backend_type;

 public:
  explicit gathered_master(trainable_weights<Model>& policy) : backend_(policy.model().backend()) {
    if (policy.kept() != gradient_memory::layers) {
      values_ = policy.whole(policy.master());
      return;
    }
    bool const first = policy.ranks().rank() == 0;
    if (first) host_.resize(std::size_t(policy.whole_size(policy.master())));
    policy.each_piece(policy.master(), [&](index_t begin, view_on<B, float const, 1> piece) {
      if (first) backend_.copy_to_host(host_.data() + begin, piece.data(), std::size_t(piece.size()) * sizeof(float));
    });
  }
  void read(index_t first, std::span<float> out) const {
    if (host_.empty())
      backend_.copy_to_host(out.data(), values_.data() + first, out.size_bytes());
    else
      std::copy_n(host_.begin() + first, out.size(), out.begin());
  }

 private:
  B& backend_;
  view_on<B, float const, 1> values_;
  std::vector<float> host_;
};

/// A saved model names all tokens at which it was trained to stop.
template <Tokenizer Z>
model_config config_to_save(model_config config, Z const& words) {
  config.stop_ids = stop_ids(words, config.stop_ids);
  return config;
}

/// What a saved model's folder has beside its weights.
template <Tokenizer Z>
class companion_files {
 public:
  companion_files(std::filesystem::path folder, Z const& words, std::filesystem::path const& source, dtype type)
      : beside_(folder.has_filename() ? std::move(folder) : folder.parent_path()) {  // "folder/"
    beside_ += ".tokenizer";
    options.type = type;
    if (chat_format const chat = chat_of(words); !chat.jinja().empty())
      options.text_files["chat_template.jinja"] = chat.jinja();
    if (is_folder(source)) {
      options.config = config_of(source);
      options.generation_config = generation_config_of(source);
    }
    if constexpr (std::same_as<Z, tokenizer>) {
      if (is_folder(source)) {
        options.copy_files = tokenizer_files(source);
      } else if (words.template get_if<byte_bpe>()) {
        write(words);
      }
    } else if constexpr (requires { words.save(beside_); }) {
      write(words);
    }
  }

  hugging_face_options options;

 private:
  void write(Z const& words) {
    written_.emplace(beside_);
    words.save(written_->path());
    for (auto const& each : std::filesystem::directory_iterator(written_->path()))
      options.copy_files.push_back(each.path());
  }

  std::filesystem::path beside_;
  std::optional<atomic_folder> written_;  // a tokenizer that is written anew; never committed, so it goes with this
};

}  // namespace detail

/// Refuses before the work what `save_model` would refuse after it: a shape that config.json cannot express, a
/// tokenizer that cannot be written, which it writes beside `folder` for a moment, or that does not belong to the
/// model. Whether the folder itself may be written is asked by `check_model_output`. \throws usage_error, file_error
template <Tokenizer Z>
void check_savable(std::filesystem::path const& folder, model_config const& config, architecture const& kind,
                   Z const& words, std::filesystem::path const& source) {
  model_config const saved = detail::config_to_save(config, words);
  validate(saved, folder.string());
  to_hugging_face_config(saved, kind, "float32");
  detail::companion_files<Z>(folder, words, source, dtype::f32);
}
/// A call of all ranks.
template <class Model, Tokenizer Z>
void check_savable(std::filesystem::path const& folder, trainable_weights<Model>& policy, Z const& words,
                   std::filesystem::path const& source) {
  comm::all_or_none(policy.ranks(), [&] {
    Model const& model = policy.model();
    if (policy.ranks().rank() == 0) check_savable(folder, model.config(), model.kind(), words, source);
  });
}

/// Adapters are merged into the matrices: W + (alpha / rank) B A. A call of all ranks, of which the first writes.
/// \param source  what the model was loaded from: a folder's tokenizer files are copied, and what its config.json and
///                generation_config.json say of other things than the model's make-up stays; other tokenizers are
///                written anew; a llama2.c vocabulary has no such form and is left out. A tokenizer of another type is
///                written by its `save(folder)`; without one the folder has none
template <class Model, Tokenizer Z>
void save_model(std::filesystem::path const& folder, trainable_weights<Model>& policy, Z const& words,
                std::filesystem::path const& source, dtype type) {
  using B = typename Model::backend_type;
  detail::gathered_master<Model> const master(policy);
  if (policy.ranks().rank() != 0) return;
  Model& model = policy.model();
  auto const find = detail::by_name(model.layout());
  row_source const rows = [&](std::string_view name, index_t first, index_t count, std::span<float> out) {
    parameter_info const& p = find(name);
    if (model.has_adapters()) {
      tensor<B, typename Model::scalar, 2> merged(model.backend(),
                                                  {p.is_vector() ? 1 : count, p.is_vector() ? count : p.columns});
      model.read_rows(p, first, merged.view(), adapters::on);
      model.backend().copy_to_host(out.data(), merged.data(), out.size_bytes());
    } else {
      index_t const begin = p.offset + first * (p.is_vector() ? 1 : p.columns);
      master.read(begin, out);
    }
  };
  detail::companion_files<Z> files(folder, words, source, type);
  hugging_face_options& options = files.options;
  // Adapters leave it as it is, and the master weights then know nothing of it: so it comes from the model.
  if (parameter_info const* const edit = model.layout().find(attention_edit_name); edit && edit->size() > 0) {
    tensor<B, typename Model::scalar, 2> values(model.backend(), {1, edit->size()});
    model.read_rows(*edit, 0, values.view());
    options.attention_edit = values.to_host();
  }
  save_hugging_face_folder(folder, detail::config_to_save(model.config(), words), model.kind(), rows, options);
}

/// A call of all ranks, of which the first writes.
/// \param base  what the model was loaded from; PEFT loads it when it is not told another
template <class Model>
void save_adapters(std::filesystem::path const& folder, trainable_weights<Model>& policy,
                   std::filesystem::path const& base) {
  detail::gathered_master<Model> const master(policy);
  if (policy.ranks().rank() != 0) return;
  Model& model = policy.model();
  expects<usage_error>(model.has_adapters(), "{}: the model has no adapters to save", folder.string());
  auto const find = detail::by_name(model.trainable_layout());
  save_peft_folder(
      folder, model.config(), model.kind(), *model.adapter_config(),
      [&](std::string_view name, std::span<float> out) { master.read(find(name).offset, out); }, base.string());
}

}  // namespace atmanrl::inline ATMANRL_ABI
