#include <atmanrl/io/gguf.hpp>

#include "catch.hpp"
#include "io/damage.hpp"
#include "io/gguf_bytes.hpp"
#include "io/scratch.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace gguf_test {
namespace {

/// Every kind of value, two tensors.
gguf_bytes sample(std::uint32_t version = 3) {
  gguf_bytes g(2, 17, version);
  g.string("name", "a text");
  g.u32("u32", 4000000000u);
  g.f32("f32", 0.5f);
  g.key("u8", 0), g.number(std::uint8_t(200));
  g.key("i8", 1), g.number(std::int8_t(-3));
  g.key("u16", 2), g.number(std::uint16_t(60000));
  g.key("i16", 3), g.number(std::int16_t(-300));
  g.key("i32", 5), g.number(std::int32_t(-70000));
  g.key("bool", 7), g.number(std::uint8_t(1));
  g.key("u64", 10), g.number(std::uint64_t(1) << 63);
  g.key("i64", 11), g.number(std::int64_t(-5000000000));
  g.key("f64", 12), g.number(0.1);
  g.array("texts", 8, 3), g.text("x"), g.text(""), g.text("\xC4\xA0z");
  g.array("ints", 5, 3), g.number(std::int32_t(-1)), g.number(std::int32_t(2)), g.number(std::int32_t(3));
  g.array("floats", 6, 2), g.number(1.5f), g.number(-2.0f);
  g.array("nested", 9, 1), g.number(std::uint32_t(5)), g.length(1), g.number(std::int32_t(9));
  g.array("flags", 7, 2), g.number(std::uint8_t(1)), g.number(std::uint8_t(0));
  g.tensor("matrix", {32, 2}, 8, 0);
  g.tensor("vector", {5}, 0, 96);
  g.pad();
  g.bytes += std::string(68, '\1');
  g.bytes += std::string(28, '\0');
  for (int i = 0; i < 5; ++i) g.number(float(i));
  return g;
}

void read_everything(std::filesystem::path const& path) {
  gguf_file const f(path);
  for (gguf_tensor const& t : f.tensors()) {
    index_t n = 1;
    for (index_t const e : t.shape) n *= e;
    std::vector<float> out(std::size_t{0});
    out.resize(std::size_t(n));
    detail::dequantize(t.type, t.bytes.data(), n, out.data());
  }
  for (std::string const& key : f.keys()) {
    complaint([&] { (void)f.find<std::string>(key); });
    complaint([&] { (void)f.find<std::vector<std::string>>(key); });
    complaint([&] { (void)f.find<std::vector<float>>(key); });
  }
}

}  // namespace

TEST_CASE("gguf: every kind of metadata is read, in versions 2 and 3") {
  scratch_folder const dir;
  for (std::uint32_t const version : {2u, 3u}) {
    put(dir / "f.gguf", sample(version).bytes);
    gguf_file const f(dir / "f.gguf");
    CHECK(f.keys().size() == 17);
    CHECK(f.get<std::string>("name") == "a text");
    CHECK(f.get<std::string_view>("name") == "a text");
    CHECK(f.get<std::uint32_t>("u32") == 4000000000u);
    CHECK(f.get<index_t>("u32") == 4000000000);
    CHECK(f.get<float>("f32") == 0.5f);
    CHECK(f.get<double>("f64") == 0.1);
    CHECK(f.get<double>("u8") == 200);
    CHECK(f.get<int>("i8") == -3);
    CHECK(f.get<int>("u16") == 60000);
    CHECK(f.get<int>("i16") == -300);
    CHECK(f.get<int>("i32") == -70000);
    CHECK(f.get<bool>("bool"));
    CHECK(f.get<std::uint64_t>("u64") == std::uint64_t(1) << 63);
    CHECK(f.get<std::int64_t>("i64") == -5000000000);
    CHECK(f.get<std::vector<std::string>>("texts") == std::vector<std::string>{"x", "", "\xC4\xA0z"});
    CHECK(f.get<std::vector<std::string_view>>("texts")[0] == "x");
    CHECK(f.get<std::vector<int>>("ints") == std::vector<int>{-1, 2, 3});
    CHECK(f.get<std::vector<float>>("floats") == std::vector<float>{1.5f, -2.0f});
    CHECK(f.get<std::vector<double>>("ints")[0] == -1);
    CHECK(f.get<std::vector<bool>>("flags") == std::vector<bool>{true, false});
    CHECK_FALSE(f.find<int>("missing"));
    CHECK(f.has("nested"));
    CHECK_FALSE(f.has("missing"));
  }
}

TEST_CASE("gguf: a missing key, a wrong kind and a number out of range name the file and the key") {
  scratch_folder const dir;
  put(dir / "f.gguf", sample().bytes);
  gguf_file const f(dir / "f.gguf");
  auto names = [&](std::optional<std::string> const& text, char const* key) {
    INFO(text.value_or("(accepted)"));
    CHECK(contains(text, (dir / "f.gguf").string()));
    CHECK(contains(text, key));
  };
  names(complaint([&] { f.get<int>("missing"); }), "missing");
  names(complaint([&] { f.get<int>("name"); }), "name");
  names(complaint([&] { f.get<int>("u64"); }), "u64");
  names(complaint([&] { f.get<std::uint32_t>("i8"); }), "i8");
  names(complaint([&] { f.get<bool>("u8"); }), "u8");
  names(complaint([&] { f.get<int>("bool"); }), "bool");
  names(complaint([&] { f.get<int>("f32"); }), "f32");
  names(complaint([&] { f.get<std::string>("u8"); }), "u8");
  names(complaint([&] { f.get<int>("ints"); }), "ints");
  names(complaint([&] { f.get<std::vector<int>>("u8"); }), "u8");
  names(complaint([&] { f.get<std::vector<int>>("texts"); }), "texts");
  names(complaint([&] { f.get<std::vector<std::string>>("ints"); }), "ints");
  names(complaint([&] { f.get<std::vector<std::uint8_t>>("ints"); }), "ints");
  names(complaint([&] { f.get<std::vector<int>>("nested"); }), "nested");
}

TEST_CASE("gguf: tensors have Hugging Face's order of axes") {
  scratch_folder const dir;
  put(dir / "f.gguf", sample().bytes);
  gguf_file const f(dir / "f.gguf");
  REQUIRE(f.tensors().size() == 2);
  gguf_tensor const* const t = f.find_tensor("matrix");
  REQUIRE(t);
  CHECK(t->shape == std::vector<index_t>{2, 32});
  CHECK(t->type == gguf_type::q8_0);
  CHECK(t->bytes.size() == 68);
  float last = 0;
  detail::dequantize(gguf_type::f32, f.find_tensor("vector")->bytes.data() + 16, 1, &last);
  CHECK(last == 4.0f);
  CHECK_FALSE(f.find_tensor("other"));
}

TEST_CASE("gguf: every truncation is refused") {
  scratch_folder const dir;
  check_every_truncation(dir / "f.gguf", sample().bytes, read_everything);
}

TEST_CASE("gguf: every lying length, count, dimension and offset is refused") {
  scratch_folder const dir;
  gguf_bytes const g = sample();
  CHECK(g.lengths.size() > 30);
  for (auto const& place : g.lengths) {
    for (std::uint64_t const lie : huge) {
      INFO("at byte " << place.at << ": " << lie);
      check_refused(dir / "f.gguf", overwritten(g.bytes, place.at, place.width, lie), read_everything);
    }
  }
}

TEST_CASE("gguf: malformed files are refused with a reason") {
  scratch_folder const dir;
  struct fault {
    std::string bytes, part;
  };
  auto with_tensor = [](std::uint32_t type, std::vector<std::uint64_t> dims, std::uint64_t offset, std::size_t data) {
    gguf_bytes g(1, 0);
    g.tensor("t", dims, type, offset);
    g.pad();
    return g.bytes + std::string(data, 'x');
  };
  auto with_key = [](auto add, std::uint64_t count = 1) {
    gguf_bytes g(0, count);
    add(g);
    return g.bytes;
  };
  gguf_bytes two(2, 0);
  two.tensor("a", {16}, 0, 0);
  two.tensor("b", {16}, 0, 32);
  two.pad();
  gguf_bytes same(2, 0);
  same.tensor("a", {8}, 0, 0);
  same.tensor("a", {8}, 0, 32);
  same.pad();
  std::vector<fault> const faults{
      {"GGUX" + sample().bytes.substr(4), "does not begin with GGUF"},
      {sample(1).bytes, "version 1"},
      {sample(0x03000000).bytes, "version"},
      {with_tensor(10, {256}, 0, 84), "tensor type 10"},
      {with_tensor(~0u, {256}, 0, 84), "tensor type"},
      {with_tensor(0, {}, 0, 4), "0 dimensions"},
      {with_tensor(0, {1, 1, 1, 1, 1}, 0, 4), "5 dimensions"},
      {with_tensor(0, {0}, 0, 4), "dimension 0"},
      {with_tensor(0, {std::uint64_t(1) << 32, std::uint64_t(1) << 32}, 0, 4), "dimension 1"},
      {with_tensor(8, {33}, 0, 68), "multiple of Q8_0's block of 32"},
      {with_tensor(0, {8}, 8, 40), "not a multiple of 32"},
      {with_tensor(0, {8}, 32, 32), "file has 32 bytes of tensors"},
      {with_tensor(0, {8}, 32, 64), "hole of 32 bytes"},
      {with_tensor(0, {8}, 0, 64), "32 bytes follow the last tensor"},
      {two.bytes + std::string(96, 'x'), "overlaps"},
      {same.bytes + std::string(64, 'x'), "the tensor a is there twice"},
      {with_key([](gguf_bytes& g) { g.u32("k", 1), g.u32("k", 2); }, 2), "the metadata key k is there twice"},
      {with_key([](gguf_bytes& g) { g.key("k", 13), g.number(std::uint64_t{}); }), "unknown value type 13"},
      {with_key([](gguf_bytes& g) { g.u32("general.alignment", 0); }), "general.alignment is 0"},
      {with_key([](gguf_bytes& g) { g.u32("general.alignment", 48); }), "general.alignment is 48"},
      {with_key([](gguf_bytes& g) { g.u32("general.alignment", 1u << 31); }), "general.alignment"},
      {with_key([](gguf_bytes& g) { g.string("general.alignment", "32"); }), "general.alignment is not a whole number"},
      {with_key([](gguf_bytes& g) {
         g.key("k", 9);
         for (int i = 0; i < 1000; ++i) g.number(std::uint32_t(9)), g.number(std::uint64_t(1));
       }),
       "nested deeper than 4"},
  };
  for (auto const& f : faults) {
    put(dir / "f.gguf", f.bytes);
    auto const text = complaint([&] { read_everything(dir / "f.gguf"); });
    INFO(f.part << " -> " << text.value_or("(accepted)"));
    CHECK(contains(text, (dir / "f.gguf").string()));
    CHECK(contains(text, f.part));
  }
}

TEST_CASE("gguf: another alignment is obeyed") {
  scratch_folder const dir;
  gguf_bytes g(1, 1);
  g.u32("general.alignment", 8);
  g.tensor("t", {2}, 0, 0);
  g.pad(8);
  g.number(1.0f), g.number(2.0f);
  put(dir / "f.gguf", g.bytes);
  CHECK(gguf_file(dir / "f.gguf").find_tensor("t")->bytes.size() == 8);
}

TEST_CASE("gguf: random damage never does worse than an error") {
  scratch_folder const dir;
  check_random_damage(dir / "bad.gguf", sample().bytes, read_everything);
  check_random_damage(dir / "bad.gguf", read_text_file(fixture("io/tiny_llama.gguf")), read_everything);
}

TEST_CASE("gguf: a file that holds only a vocabulary opens", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  gguf_file const f(*data / "tokenizers/gpt2/ggml-vocab-gpt-2.gguf");
  CHECK(f.tensors().empty());
  CHECK(f.get<std::string>("tokenizer.ggml.model") == "gpt2");
  CHECK(f.get<std::vector<std::string_view>>("tokenizer.ggml.tokens").size() == 50257);
  CHECK(f.get<std::vector<std::string>>("tokenizer.ggml.merges").front() == "\xC4\xA0 t");
  CHECK(f.get<std::vector<int>>("tokenizer.ggml.token_type").back() == 3);
  CHECK(f.get<int>("tokenizer.ggml.bos_token_id") == 50256);
}

}  // namespace gguf_test
