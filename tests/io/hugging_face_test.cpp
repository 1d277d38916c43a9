#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/blocks.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"
#include "test_data.hpp"

#include <set>

using namespace atmanrl;
using namespace atmanrl_test;

namespace hugging_face_test {
namespace {

std::set<std::string> names_in(std::filesystem::path const& folder) {
  std::set<std::string> names;
  for (auto const& entry : std::filesystem::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

row_source rows_of(model_file const& m) {
  return [&m](std::string_view name, index_t first, index_t count, std::span<float> out) {
    m.read_rows(name, first, count, out);
  };
}

}  // namespace

TEST_CASE("hugging_face: a saved folder opens as the same model") {
  scratch_folder const dir;
  model_file const tiny = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  for (dtype const t : {dtype::f32, dtype::bf16, dtype::f16}) {
    save_hugging_face_folder(dir / "m", tiny.config(), tiny.kind(), rows_of(tiny), {.type = t});
    model_file const m = model_file::open(dir / "m", standard_architectures());
    CHECK(m.config() == tiny.config());
    CHECK(m.storage_type("model.norm.weight") == dtype_name(t));
    for (tensor_shape const& s : tiny.tensors()) {
      std::size_t n = 1;
      for (index_t const e : s.shape) n *= std::size_t(e);
      std::vector<float> a(n), b(n);
      tiny.read(s.name, a);
      m.read(s.name, b);
      CHECK(a == b);
    }
    CHECK(read_json_file(dir / "m/config.json")["torch_dtype"] == torch_dtype_name(t));
    CHECK(read_json_file(dir / "m/generation_config.json")["eos_token_id"] == json{21, 22, 23});
    CHECK(safetensors_file(dir / "m/model.safetensors").metadata().at("format") == "pt");
    CHECK(names_in(dir / "m") == std::set<std::string>{"config.json", "generation_config.json", "model.safetensors"});
  }
  CHECK(names_in(dir.path()) == std::set<std::string>{"m"});
}

TEST_CASE("hugging_face: large models go into shards with an index that sums up their bytes") {
  scratch_folder const dir;
  model_file const tiny = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  save_hugging_face_folder(dir / "m", tiny.config(), tiny.kind(), rows_of(tiny),
                           {.type = dtype::bf16, .max_shard_bytes = 6000});
  json const index = read_json_file(dir / "m/model.safetensors.index.json");
  std::set<std::string> shards;
  std::uint64_t bytes = 0;
  for (auto const& [tensor, shard] : index["weight_map"].items()) {
    shards.insert(shard.get<std::string>());
    bytes += safetensors_file(dir / "m" / shard.get<std::string>()).find(tensor)->bytes.size();
  }
  CHECK(shards.size() >= 3);
  CHECK(index["metadata"]["total_size"] == bytes);
  for (auto const& shard : shards) {
    std::uint64_t in_shard = 0;
    safetensors_file const f(dir / "m" / shard);
    for (auto const& t : f.tensors()) in_shard += t.bytes.size();
    CHECK(in_shard <= 6000);
  }
}

TEST_CASE("hugging_face: tokenizer files are copied and texts are added") {
  scratch_folder const dir;
  model_file const tiny = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  std::filesystem::create_directories(dir / "from");
  put(dir / "from/tokenizer.json", "{\"t\":1}");
  put(dir / "from/tokenizer_config.json", "{}");
  put(dir / "from/other.txt", "x");
  auto const files = tokenizer_files(dir / "from");
  CHECK(files.size() == 2);
  save_hugging_face_folder(dir / "m/", tiny.config(), tiny.kind(), rows_of(tiny),
                           {.copy_files = files, .text_files = {{"chat_template.jinja", "hi"}}});
  CHECK(read_text_file(dir / "m/tokenizer.json") == "{\"t\":1}");
  CHECK(read_text_file(dir / "m/chat_template.jinja") == "hi");
  CHECK_FALSE(std::filesystem::exists(dir / "m/other.txt"));
  CHECK_THROWS_AS(
      save_hugging_face_folder(dir / "m", tiny.config(), tiny.kind(), rows_of(tiny), {.copy_files = {dir / "gone"}}),
      file_error);
  CHECK(read_text_file(dir / "m/tokenizer.json") == "{\"t\":1}");
}

TEST_CASE("hugging_face: a failure leaves the older model as it was and nothing half-written") {
  scratch_folder const dir;
  model_file const tiny = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  save_hugging_face_folder(dir / "m", tiny.config(), tiny.kind(), rows_of(tiny), {.type = dtype::f32});
  auto const broken = [&](std::string_view name, index_t first, index_t count, std::span<float> out) {
    if (name == "model.norm.weight") throw numeric_error("a weight is not finite");
    tiny.read_rows(name, first, count, out);
  };
  CHECK_THROWS_AS(save_hugging_face_folder(dir / "m", tiny.config(), tiny.kind(), broken, {.type = dtype::bf16}),
                  numeric_error);
  CHECK(model_file::open(dir / "m", standard_architectures()).storage_type("model.norm.weight") == "F32");
  CHECK(names_in(dir.path()) == std::set<std::string>{"m"});
}

TEST_CASE("hugging_face: a folder with other people's files is never replaced") {
  scratch_folder const dir;
  model_file const tiny = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  std::filesystem::create_directories(dir / "home");
  put(dir / "home/thesis.tex", "years of work");
  CHECK(contains(complaint([&] { save_hugging_face_folder(dir / "home", tiny.config(), tiny.kind(), rows_of(tiny)); }),
                 "also holds thesis.tex"));
  CHECK(read_text_file(dir / "home/thesis.tex") == "years of work");
  put(dir / "file", "x");
  CHECK(contains(complaint([&] { save_hugging_face_folder(dir / "file", tiny.config(), tiny.kind(), rows_of(tiny)); }),
                 "is not a folder"));
  CHECK_THROWS_AS(save_hugging_face_folder(dir / "i8", tiny.config(), tiny.kind(), rows_of(tiny), {.type = dtype::i8}),
                  usage_error);
  CHECK(names_in(dir.path()) == std::set<std::string>{"file", "home"});
}

TEST_CASE("hugging_face: a llama3 GGUF becomes a folder with its rule in config.json") {
  scratch_folder const dir;
  model_file const gguf = model_file::open(fixture("io/tiny_llama.gguf"), standard_architectures());
  save_hugging_face_folder(dir / "m", gguf.config(), gguf.kind(), rows_of(gguf), {.type = dtype::f32});
  CHECK(model_file::open(dir / "m", standard_architectures()).config() ==
        model_file::open(fixture("io/tiny_llama"), standard_architectures()).config());
}

TEST_CASE("hugging_face: what config.json says of other things than the model's make-up stays") {
  scratch_folder const dir;
  model_file const tiny = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  std::filesystem::create_directory(dir / "source");
  json source = read_json_file(fixture("io/tiny_llama") / "config.json");
  source["pad_token_id"] = 4;
  source["attention_dropout"] = 0.1;
  source["new_field"] = {{"a", {1}}};
  json const kept = {{"pad_token_id", 4}, {"attention_dropout", 0.1}, {"new_field", {{"a", {1}}}}};
  source["num_hidden_layers"] = 99;  // the model that is written says these itself
  source["dtype"] = "float16";
  source["auto_map"] = {{"AutoModel", "code.py"}};
  put(dir / "source/config.json", source.dump());
  hugging_face_options const options{.type = dtype::f32, .config = config_of(dir / "source")};
  save_hugging_face_folder(dir / "m", tiny.config(), tiny.kind(), rows_of(tiny), options);
  json const saved = read_json_file(dir / "m/config.json");
  for (auto const& [name, value] : kept.items()) CHECK(saved.value(name, json()) == value);
  for (char const* const name : {"dtype", "auto_map"}) CHECK_FALSE(saved.contains(name));
  CHECK(saved["torch_dtype"] == "float32");
  CHECK(model_file::open(dir / "m", standard_architectures()).config() == tiny.config());
  CHECK(config_of(dir / "nowhere").is_null());
}

TEST_CASE("hugging_face: what generation_config.json says beside its ids stays, and its ends of a text are added") {
  scratch_folder const dir;
  model_file const tiny = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  model_config config = tiny.config();
  config.bos_id = 1;
  config.stop_ids = {2, 5};
  put(dir / "generation_config.json", R"({"bos_token_id": 7, "eos_token_id": [5, 3], "pad_token_id": 4,
                                          "temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.1,
                                          "do_sample": true,
                                          "transformers_version": "4.57.0", "new_field": {"a": [1]}})");
  hugging_face_options const options{.type = dtype::f32, .generation_config = generation_config_of(dir.path())};
  save_hugging_face_folder(dir / "m", config, tiny.kind(), rows_of(tiny), options);
  json const saved = read_json_file(dir / "m/generation_config.json");
  json expected = read_json_file(dir / "generation_config.json");
  expected["bos_token_id"] = 1;
  expected["eos_token_id"] = {2, 5, 3};
  CHECK(saved == expected);
  CHECK(model_file::open(dir / "m", standard_architectures()).config().stop_ids == std::vector<int>{2, 5, 3});

  CHECK(generation_config_of(dir / "nowhere").is_null());
  config.stop_ids = {2};
  save_hugging_face_folder(dir / "m", config, tiny.kind(), rows_of(tiny), {.type = dtype::f32});
  CHECK(read_json_file(dir / "m/generation_config.json") == json{{"bos_token_id", 1}, {"eos_token_id", 2}});
}

TEST_CASE("hugging_face: whether a model may be written to a folder is known before it is trained") {
  scratch_folder const dir;
  model_file const tiny = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  save_hugging_face_folder(dir / "m", tiny.config(), tiny.kind(), rows_of(tiny), {.text_files = {{"README.md", "x"}}});
  auto const refused = [&](std::filesystem::path const& folder, hugging_face_options const& options = {}) {
    return complaint<usage_error>([&] { check_model_output("--out", folder, options); });
  };
  CHECK_FALSE(refused(dir / "new/model"));
  CHECK_FALSE(refused(dir / "m", {.text_files = {{"README.md", ""}}}));
  CHECK(contains(refused(dir / "m"), "--out " + (dir / "m").string() + ": cannot be replaced"));
  put(dir / "m/thesis.tex", "years of work");
  CHECK(contains(refused(dir / "m", {.text_files = {{"README.md", ""}}}), "also holds thesis.tex"));
  CHECK(contains(refused(dir / std::string(300, 'n')), "File name too long"));
  CHECK(names_in(dir.path()) == std::set<std::string>{"m"});
}

}  // namespace hugging_face_test
