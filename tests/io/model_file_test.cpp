#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/blocks.hpp>

#include "catch.hpp"
#include "io/damage.hpp"
#include "io/gguf_bytes.hpp"
#include "io/scratch.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace model_file_test {
namespace {

std::vector<float> values(model_file const& m, std::string_view name) {
  index_t n = 1;
  for (index_t const e : m.shape(name)) n *= e;
  auto out = std::vector<float>(std::size_t(n));
  m.read(name, out);
  return out;
}

void read_everything(std::filesystem::path const& path) {
  model_file const m = model_file::open(path, standard_architectures());
  for (tensor_shape const& t : m.tensors()) values(m, t.name);
}

/// A copy of the tiny model's folder that a test may spoil.
void copy_tiny(std::filesystem::path const& to) {
  std::filesystem::remove_all(to);
  std::filesystem::copy(fixture("io/tiny_llama"), to);
}

void write_shape_only_gguf(std::filesystem::path const& path, std::string const& arch, bool bias, bool extra) {
  std::uint64_t const hidden = 4, ffn = 6, vocab = 8;
  struct tensor {
    std::string name;
    std::vector<std::uint64_t> dims;
  };
  std::vector<tensor> tensors{{"token_embd.weight", {hidden, vocab}}, {"output_norm.weight", {hidden}}};
  for (char const* n : {"attn_norm.weight", "ffn_norm.weight"})
    tensors.push_back({std::string("blk.0.") + n, {hidden}});
  for (char const* n : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
    tensors.push_back({std::string("blk.0.") + n + ".weight", {hidden, hidden}});
    if (bias && std::string(n) != "attn_output") tensors.push_back({std::string("blk.0.") + n + ".bias", {hidden}});
  }
  tensors.push_back({"blk.0.ffn_gate.weight", {hidden, ffn}});
  tensors.push_back({"blk.0.ffn_up.weight", {hidden, ffn}});
  tensors.push_back({"blk.0.ffn_down.weight", {ffn, hidden}});
  if (extra) tensors.push_back({"blk.0.attn_q_norm.weight", {hidden}});
  gguf_bytes g(tensors.size(), 7);
  g.string("general.architecture", arch);
  g.f32(arch + ".attention.layer_norm_rms_epsilon", 1e-6f);
  g.u32(arch + ".block_count", 1);
  g.u32(arch + ".embedding_length", std::uint32_t(hidden));
  g.u32(arch + ".feed_forward_length", std::uint32_t(ffn));
  g.u32(arch + ".attention.head_count", 1);
  g.u32(arch + ".context_length", 16);
  std::uint64_t offset = 0;
  std::string data;
  for (auto const& t : tensors) {
    g.tensor(t.name, t.dims, 0, offset);
    std::uint64_t n = 1;
    for (auto const d : t.dims) n *= d;
    for (std::uint64_t i = 0; i < n; ++i) {
      float const x = float(i);
      data.append(reinterpret_cast<char const*>(&x), 4);
    }
    data.resize((data.size() + 31) / 32 * 32);
    offset = data.size();
  }
  g.pad();
  put(path, g.bytes + data);
}

}  // namespace

TEST_CASE("model_file: the GGUF and the Hugging Face folder of one model are equal") {
  model_file const gguf = model_file::open(fixture("io/tiny_llama.gguf"), standard_architectures());
  model_file const hf = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  model_config expected = hf.config();
  expected.rope_scaling.factors = gguf.config().rope_scaling.factors;
  CHECK(gguf.config() == expected);
  for (tensor_shape const& t : hf.tensors()) {
    INFO(t.name);
    CHECK(gguf.shape(t.name) == t.shape);
    CHECK(values(gguf, t.name) == values(hf, t.name));
  }
  CHECK(gguf.tensors() == hf.tensors());
  CHECK(gguf.storage_type("model.layers.1.mlp.up_proj.weight") == "BF16");
  CHECK(hf.storage_type("model.layers.1.mlp.up_proj.weight") == "F16");
  CHECK(hf.path() == fixture("io/tiny_llama"));
}

TEST_CASE("model_file: rows may be read in any pieces") {
  for (char const* const path : {"io/tiny_llama.gguf", "io/tiny_llama"}) {
    model_file const m = model_file::open(fixture(path), standard_architectures());
    for (char const* const name : {"model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight",
                                   "model.layers.1.mlp.down_proj.weight", "model.norm.weight"}) {
      std::vector<float> const whole = values(m, name);
      index_t const rows = m.shape(name)[0], columns = index_t(whole.size()) / rows;
      for (index_t first = 0; first <= rows; first += 3) {
        for (index_t const count : {index_t(0), index_t(1), index_t(5)}) {
          if (first + count > rows) continue;
          auto part = std::vector<float>(std::size_t(count * columns));
          m.read_rows(name, first, count, part);
          REQUIRE(std::equal(part.begin(), part.end(), whole.begin() + first * columns));
        }
      }
    }
    std::vector<float> one(16);
    CHECK_THROWS_AS(m.read_rows("model.embed_tokens.weight", 24, 1, one), shape_error);
    CHECK_THROWS_AS(m.read_rows("model.embed_tokens.weight", -1, 1, one), shape_error);
    CHECK_THROWS_AS(m.read_rows("model.embed_tokens.weight", 0, 2, one), shape_error);
    CHECK_THROWS_AS(m.read("model.other.weight", one), shape_error);
    CHECK(m.has("lm_head.weight"));
    CHECK_FALSE(m.has("lm_head.bias"));
  }
}

TEST_CASE("model_file: qwen2's GGUF has biases and rows in place, llama's are interleaved") {
  scratch_folder const dir;
  write_shape_only_gguf(dir / "q.gguf", "qwen2", true, false);
  write_shape_only_gguf(dir / "l.gguf", "llama", false, false);
  std::vector<float> const straight{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  std::vector<float> const halves{0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15};
  model_file const q = model_file::open(dir / "q.gguf", standard_architectures()),
                   l = model_file::open(dir / "l.gguf", standard_architectures());
  CHECK(values(q, "model.layers.0.self_attn.q_proj.weight") == straight);
  CHECK(values(q, "model.layers.0.self_attn.v_proj.bias") == std::vector<float>{0, 1, 2, 3});
  CHECK(q.config().rms_eps == 1e-6);
  CHECK(values(l, "model.layers.0.self_attn.q_proj.weight") == halves);
  CHECK(values(l, "model.layers.0.self_attn.k_proj.weight") == halves);
  CHECK(values(l, "model.layers.0.self_attn.v_proj.weight") == straight);
  CHECK(l.config().tied_head);
}

TEST_CASE("model_file: tensors too few and too many are refused by name") {
  scratch_folder const dir;
  write_shape_only_gguf(dir / "m.gguf", "qwen2", false, false);
  CHECK(contains(complaint([&] { model_file::open(dir / "m.gguf", standard_architectures()); }),
                 "q_proj.bias is missing"));
  write_shape_only_gguf(dir / "m.gguf", "llama", true, false);
  CHECK(model_file::open(dir / "m.gguf", standard_architectures()).config().qkv_bias);  // llama.cpp has them so, too
  write_shape_only_gguf(dir / "m.gguf", "llama", false, true);
  CHECK(contains(complaint([&] { model_file::open(dir / "m.gguf", standard_architectures()); }),
                 "attn_q_norm.weight is not known"));
}

TEST_CASE("model_file: a config that promises other shapes than the file holds is refused") {
  scratch_folder const dir;
  for (auto const& [field, value, part] : std::vector<std::tuple<char const*, int, char const*>>{
           {"vocab_size", 25, "embed_tokens.weight has shape [24, 16] but the config asks for [25, 16]"},
           {"num_hidden_layers", 3, "model.layers.2.input_layernorm.weight is missing"},
           {"num_hidden_layers", 1, "model.layers.1."},
           {"head_dim", 16, "q_proj.weight has shape [32, 16]"},
           {"intermediate_size", 41, "mlp.gate_proj.weight"}}) {
    copy_tiny(dir / "m");
    json config = read_json_file(dir / "m/config.json");
    config[field] = value;
    put(dir / "m/config.json", config.dump());
    auto const text = complaint([&] { model_file::open(dir / "m", standard_architectures()); });
    INFO(text.value_or("(accepted)"));
    CHECK(contains(text, part));
    CHECK(contains(text, (dir / "m").string()));
  }
}

TEST_CASE("model_file: a stored head wins over tie_word_embeddings unless it is the embedding again") {
  scratch_folder const dir;
  model_file const tiny = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  auto write = [&](bool tie, char const* head) {
    std::filesystem::remove_all(dir / "m");
    std::filesystem::create_directories(dir / "m");
    json config = to_hugging_face_config(tiny.config(), tiny.kind(), "float32");
    config["tie_word_embeddings"] = tie;
    put(dir / "m/config.json", config.dump());
    std::vector<std::vector<float>> data;
    std::vector<named_tensor> tensors;
    for (tensor_shape const& t : tiny.tensors()) {
      if (t.name == "lm_head.weight" && !head) continue;
      data.push_back(values(tiny, t.name == "lm_head.weight" ? head : t.name));
      tensors.push_back({t.name, t.shape, data.back()});
    }
    save_safetensors(dir / "m/model.safetensors", tensors);
  };
  write(true, "lm_head.weight");
  CHECK_FALSE(model_file::open(dir / "m", standard_architectures()).config().tied_head);
  write(true, "model.embed_tokens.weight");
  CHECK(model_file::open(dir / "m", standard_architectures()).config().tied_head);
  CHECK_FALSE(model_file::open(dir / "m", standard_architectures()).has("lm_head.weight"));
  write(true, nullptr);
  CHECK(model_file::open(dir / "m", standard_architectures()).config().tied_head);
  write(false, nullptr);
  CHECK(
      contains(complaint([&] { model_file::open(dir / "m", standard_architectures()); }), "lm_head.weight is missing"));
}

TEST_CASE("model_file: shards and their index are read and checked") {
  scratch_folder const dir;
  model_file const tiny = model_file::open(fixture("io/tiny_llama"), standard_architectures());
  save_hugging_face_folder(dir / "m", tiny.config(), tiny.kind(), [&](auto... a) { tiny.read_rows(a...); },
                           {.type = dtype::f32, .max_shard_bytes = 20000});
  std::filesystem::path const index = dir / "m/model.safetensors.index.json";
  json const good = read_json_file(index);
  std::string const first = "model-00001-of-00002.safetensors", second = "model-00002-of-00002.safetensors";
  REQUIRE(std::filesystem::exists(dir / "m" / second));
  {
    model_file const m = model_file::open(dir / "m", standard_architectures());
    for (tensor_shape const& t : tiny.tensors()) CHECK(values(m, t.name) == values(tiny, t.name));
  }
  auto refused = [&](json const& changed, char const* part) {
    put(index, changed.dump());
    auto const text = complaint([&] { model_file::open(dir / "m", standard_architectures()); });
    INFO(text.value_or("(accepted)"));
    CHECK(contains(text, part));
    CHECK(contains(text, (dir / "m").string()));
  };
  json changed = good;
  changed["weight_map"]["model.norm.weight"] = first;
  refused(changed, "model.norm.weight");
  changed["weight_map"]["model.norm.weight"] = "../secret.safetensors";
  refused(changed, "not a plain file name");
  changed["weight_map"]["model.norm.weight"] = 7;
  refused(changed, "weight_map.model.norm.weight");
  changed["weight_map"]["model.norm.weight"] = "gone.safetensors";
  refused(changed, "gone.safetensors: cannot be opened");
  changed = good;
  changed["weight_map"].erase("model.norm.weight");
  refused(changed, "model.norm.weight is missing");
  refused(json::object(), "weight_map is missing");
  refused(json(3), "weight_map is missing");
  std::filesystem::remove(index);
  CHECK(contains(complaint([&] { model_file::open(dir / "m", standard_architectures()); }),
                 "holds neither model.safetensors nor"));
}

TEST_CASE("model_file: paths that are no model are refused by name") {
  scratch_folder const dir;
  put(dir / "notes.txt", "hello");
  put(dir / "empty.gguf", "");
  put(dir / "empty.bin", "");
  std::filesystem::create_directories(dir / "folder");
  for (char const* const name : {"nothing", "notes.txt", "empty.gguf", "empty.bin", "folder"}) {
    CHECK(contains(complaint([&] { model_file::open(dir / name, standard_architectures()); }), (dir / name).string()));
  }
}

TEST_CASE("model_file: a part of a split GGUF says which part it is, and a Git LFS pointer that it is one") {
  scratch_folder const dir;
  gguf_bytes g(0, 3);
  g.key("split.no", 2), g.number(std::uint16_t{1});
  g.key("split.count", 2), g.number(std::uint16_t{3});
  g.string("general.architecture", "llama");
  g.pad();
  put(dir / "model-00002-of-00003.gguf", g.bytes);
  CHECK(contains(complaint([&] { model_file::open(dir / "model-00002-of-00003.gguf", standard_architectures()); }),
                 "model-00002-of-00003.gguf: is part 2 of 3 of a model"));
  copy_tiny(dir / "m");
  put(dir / "m/model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n");
  CHECK(contains(complaint([&] { model_file::open(dir / "m", standard_architectures()); }),
                 "model.safetensors: is a Git LFS pointer"));
}

TEST_CASE("model_file: a path that the system will not look at is refused with the reason") {
  scratch_folder const dir;
  std::filesystem::create_symlink("loop", dir / "loop");
  CHECK(contains(complaint([&] { model_file::open(dir / "loop", standard_architectures()); }),
                 "loop: Too many levels of symbolic links"));
  CHECK(contains(complaint([&] { model_file::open(dir / std::string(300, 'n'), standard_architectures()); }),
                 "File name too long"));
}
TEST_CASE("model_file: truncated and randomly damaged models never do worse than an error") {
  scratch_folder const dir;
  std::string const gguf = read_text_file(fixture("io/tiny_llama.gguf"));
  check_random_damage(dir / "m.gguf", gguf, read_everything);
  std::string const bytes = read_text_file(fixture("io/tiny_llama/model.safetensors"));
  copy_tiny(dir / "m");
  // Where a file still reads but holds other tensors than the config asks for, the error names the folder.
  auto open_folder = [&](std::filesystem::path const& damaged) {
    try {
      read_everything(dir / "m");
    } catch (file_error const& e) {
      std::string const text = e.what();
      if (!contains(text, (dir / "m").string())) throw;
      fail<file_error>("{}: {}", damaged.string(), text);
    }
  };
  check_random_damage(dir / "m/model.safetensors", bytes, open_folder);
  for (std::size_t n = 0; n < bytes.size(); n += n < 3000 ? 1 : 97) {
    check_refused(dir / "m/model.safetensors", bytes.substr(0, n), open_folder);
  }
  put(dir / "m/model.safetensors", bytes);
  check_random_damage(dir / "m/config.json", read_text_file(fixture("io/tiny_llama/config.json")), open_folder);
}

TEST_CASE("model_file: stories260K opens with rows for the half-split rotation", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  model_file const m = model_file::open(*data / "tinyllamas/stories260K.bin", standard_architectures());
  llama2c_file const raw(*data / "tinyllamas/stories260K.bin");
  CHECK(m.tensors().size() == 5 * 9 + 2);
  auto const& bytes = raw.tensors().at("model.layers.3.self_attn.k_proj.weight").bytes;
  std::vector<float> stored(32 * 64);
  detail::widen(dtype::f32, bytes.data(), 32 * 64, stored.data());
  std::vector<float> const half_split = values(m, "model.layers.3.self_attn.k_proj.weight");
  for (int head = 0; head < 4; ++head) {
    for (int pair = 0; pair < 4; ++pair) {
      for (int column : {0, 63}) {
        CHECK(half_split[std::size_t((head * 8 + pair) * 64 + column)] ==
              stored[std::size_t((head * 8 + 2 * pair) * 64 + column)]);
        CHECK(half_split[std::size_t((head * 8 + pair + 4) * 64 + column)] ==
              stored[std::size_t((head * 8 + 2 * pair + 1) * 64 + column)]);
      }
    }
  }
}

}  // namespace model_file_test
