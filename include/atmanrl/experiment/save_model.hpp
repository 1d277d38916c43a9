#pragma once

/// \file
/// Writes the trained model as a Hugging Face folder with its tokenizer.

#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <filesystem>
#include <map>
#include <string>

namespace atmanrl {

/// \param source  what the model was loaded from: a folder's tokenizer files are copied, other tokenizers are written anew;
///                a llama2.c vocabulary has no such form and is left out
template <class Model>
void save_model(std::filesystem::path const& folder, trainable_policy<Model>& policy, tokenizer const& words, std::filesystem::path const& source,
                dtype type) {
  Model& model = policy.model();
  std::map<std::string, parameter_info const*, std::less<>> by_name;
  for (parameter_info const& p : model.layout().all()) by_name.emplace(p.name, &p);
  row_source const rows = [&](std::string_view name, index_t first, index_t, std::span<float> out) {
    auto const at = by_name.find(name);
    expects<shape_error>(at != by_name.end(), "the model has no parameter {}", name);
    parameter_info const& p = *at->second;
    index_t const begin = p.offset + first * (p.is_vector() ? 1 : p.columns);
    model.backend().copy_to_host(out.data(), policy.master().data() + begin, out.size_bytes());
  };
  hugging_face_options options{.type = type};
  std::filesystem::path made;
  if (std::filesystem::is_directory(source)) {
    options.copy_files = tokenizer_files(source);
  } else if (words.get_if<byte_bpe>()) {
    made = folder;
    made += ".tokenizer.partial-" + std::to_string(::getpid());
    std::filesystem::create_directories(made);
    words.save(made);
    options.copy_files = tokenizer_files(made);
  }
  save_hugging_face_folder(folder, model.config(), rows, options);
  std::error_code ignored;
  if (!made.empty()) std::filesystem::remove_all(made, ignored);
}

}  // namespace atmanrl
