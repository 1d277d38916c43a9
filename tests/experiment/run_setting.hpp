#pragma once
// What the tests of experiment/ share: a small random model in a folder, options for a run of seconds, the programs.
#include <atmanrl/core/random.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/traits.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/nn/blocks.hpp>
#include <atmanrl/tasks/arithmetic_text.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

#include "io/scratch.hpp"

namespace atmanrl_test {

inline atmanrl::model_config random_config() {
  atmanrl::byte_bpe const words(atmanrl::arithmetic_text::vocabulary());
  atmanrl::model_config c;
  c.layers = 2;
  c.hidden = 16;
  c.heads = 2;
  c.kv_heads = 1;
  c.head_dim = 8;
  c.ffn = 24;
  c.vocab = words.vocab_size();
  c.max_positions = 256;
  c.bos_id = words.bos();
  c.stop_ids = {words.eos()};
  return c;
}

/// Writes a model with random weights and the arithmetic vocabulary.
/// \param deviation  of the weights; large ones make confident models
/// \param kind       which tensors it has
inline void write_random_model(std::filesystem::path const& folder, atmanrl::model_config const& c, double deviation,
                               atmanrl::architecture const& kind) {
  atmanrl::row_source const rows = [&](std::string_view name, atmanrl::index_t first, atmanrl::index_t,
                                       std::span<float> out) {
    bool const gain = name.find("norm") != std::string_view::npos;
    std::uint32_t hash = 17;
    for (char const x : name) hash = hash * 31 + std::uint32_t(x);
    atmanrl::random_stream draw(atmanrl::random_key{.seed = 5, .step = hash, .prompt = std::uint32_t(first)});
    for (float& x : out) x = gain ? 1.0f : float(deviation * draw.normal());
  };
  atmanrl::tokenizer const words{atmanrl::byte_bpe(atmanrl::arithmetic_text::vocabulary())};
  std::filesystem::path parts = folder;
  parts += "-tokenizer";
  std::filesystem::create_directories(parts);
  words.save(parts);
  atmanrl::save_hugging_face_folder(folder, c, kind, rows,
                                    {.type = atmanrl::dtype::f32, .copy_files = atmanrl::tokenizer_files(parts)});
}

inline void write_random_model(std::filesystem::path const& folder, atmanrl::model_config const& c,
                               double deviation = 0.3) {
  write_random_model(folder, c, deviation, atmanrl::standard_kind(c));
}

/// A run of a second: two steps of two groups of four.
inline atmanrl::experiment_options short_run(std::filesystem::path const& model, std::filesystem::path const& out) {
  atmanrl::experiment_options o;
  o.model = model;
  o.out = out;
  o.steps = 3;
  o.prompts_per_step = 2;
  o.group_size = 4;
  o.max_new_tokens = 12;
  o.mask.steps = 3;
  o.no_delimiter = atmanrl::no_delimiter_policy::force;
  o.learning_rate = 1e-3;
  o.eval_questions = 4;
  o.eval_samples = 2;
  o.validate_every = 2;
  o.checkpoint_every = 1;
  o.seed = 7;
  o.threads = 1;
  return o;
}

inline std::string content(std::filesystem::path const& path) { return atmanrl::read_text_file(path); }

inline std::size_t count_lines(std::filesystem::path const& path) {
  std::string const text = std::filesystem::exists(path) ? content(path) : std::string();
  return std::size_t(std::count(text.begin(), text.end(), '\n'));
}

/// Where an example program of this build lies: $ATMANRL_PROGRAMS, else beside the tests; nothing when it was not
/// built.
inline std::optional<std::filesystem::path> program(char const* name) {
  char const* const named = std::getenv("ATMANRL_PROGRAMS");
  auto const folder = named ? std::filesystem::path(named)
                            : std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "examples";
  auto const path = folder / name;
  return std::filesystem::exists(path) ? std::optional(path) : std::nullopt;
}

struct program_result {
  int status = -1;
  std::string output;  ///< standard output and standard error
};

/// Runs a shell command.
inline program_result run_command(std::string const& command) {
  program_result r;
  std::FILE* const pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return r;
  char piece[4096];
  while (std::size_t const n = std::fread(piece, 1, sizeof piece, pipe)) r.output.append(piece, n);
  int const status = ::pclose(pipe);
  r.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return r;
}

}  // namespace atmanrl_test
