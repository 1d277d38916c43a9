#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/text/split.hpp>
#include <atmanrl/text/tokenizer.hpp>
#include <atmanrl/nn/blocks.hpp>

#include "catch.hpp"
#include "test_data.hpp"

#include <set>

using namespace atmanrl;
using namespace atmanrl_test;

namespace tiny_model_test {
namespace {

std::filesystem::path model_folder() { return std::filesystem::path(ATMANRL_FIXTURES) / "../../examples/models/tiny"; }

}  // namespace

TEST_CASE("tiny model: its tokenizer is the arithmetic vocabulary") {
  tokenizer const words = tokenizer::load(model_folder());
  byte_bpe_spec const& read = words.get_if<byte_bpe>()->spec();
  byte_bpe_spec const expected = arithmetic_text::vocabulary();
  CHECK(read.tokens == expected.tokens);
  CHECK(read.kinds == expected.kinds);
  CHECK(read.splits == expected.splits);
  CHECK(read.merges.empty());
  CHECK(read.ignore_merges);
  CHECK(read.bos == expected.bos);
  CHECK(read.eos == expected.eos);
}

TEST_CASE("tiny model: texts get the ids that Hugging Face's tokenizers gives them") {
  tokenizer const words = tokenizer::load(model_folder());
  json const vectors = read_json_file(fixture("tasks/tiny_vectors.json"));
  CHECK(vectors.size() > 150);
  for (json const& v : vectors) {
    auto const text = v["text"].get<std::string>();
    CAPTURE(text);
    REQUIRE(words.encode(text) == v["ids"].get<std::vector<int>>());
    REQUIRE(words.decode(v["ids"].get<std::vector<int>>()) == text);
  }
}

TEST_CASE("tiny model: at most 4 MB, made for its tokenizer, stops at the end of a text") {
  std::uintmax_t bytes = 0;
  for (auto const& entry : std::filesystem::directory_iterator(model_folder())) bytes += entry.file_size();
  CHECK(bytes < 4000000);
  auto const file = model_file::open(model_folder(), standard_architectures());
  tokenizer const words = tokenizer::load(model_folder());
  CHECK(file.config().vocab == words.vocab_size());
  CHECK(file.config().bos_id == words.bos());
  CHECK(file.config().stop_ids == std::vector<int>{words.eos()});
  CHECK(file.storage_type("model.embed_tokens.weight") == "BF16");
  index_t parameters = 0;
  for (tensor_shape const& t : file.tensors()) {
    index_t size = 1;
    for (index_t const e : t.shape) size *= e;
    parameters += size;
  }
  CHECK((parameters >= 500000 && parameters <= 1000000));
}

TEST_CASE("tiny model: solves 50 to 85 % of unseen problems at temperature 1, verbosely and never the same way") {
  cpu_backend backend;
  auto model = llama<cpu_backend>::load(backend, model_folder());
  tokenizer const words = tokenizer::load(model_folder());
  arithmetic const task;
  std::vector<task_item> items;
  std::vector<std::vector<int>> prompts;
  for (index_t i = 0; i < 60; ++i) {
    items.push_back(task.evaluation_item(20000 + i));  // not those that its folder's figures are of
    prompts.push_back(task.prompt(items.back(), words));
  }
  generate_options options;
  options.group_size = 4;
  options.max_new_tokens = 192;
  options.stop_ids = model.config().stop_ids;
  options.seed = 1;
  auto const completions =
      generate(model, std::span<std::vector<int> const>(prompts), options, samplers::multinomial{});
  double correct = 0, tokens = 0, filler = 0, mixed = 0;
  for (std::size_t p = 0; p < items.size(); ++p) {
    std::set<std::vector<int>> different;
    int right = 0;
    for (completion const& c : completions[p]) {
      completion_spans const spans = split_completion(words, c.ids, options.stop_ids);
      auto const cot = std::span(c.ids).subspan(0, std::size_t(spans.cot.last));
      right += task.grade(items[p], words.decode(c.ids)).correct_strict;
      tokens += double(cot.size()) / 240;
      filler += find_planted(words, cot).filler_sentences / 240.0;
      different.insert(c.ids);
    }
    CHECK(different.size() >= 3);
    correct += right / 240.0;
    mixed += right > 0 && right < 4;
  }
  CAPTURE(correct, tokens, filler, mixed);
  CHECK((correct >= 0.5 && correct <= 0.85));
  CHECK((tokens >= 40 && tokens <= 70));
  CHECK(filler > 2);
  CHECK(mixed >= 15);  // groups that teach something
}

}  // namespace tiny_model_test
