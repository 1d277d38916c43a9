#include <atmanrl/io/safetensors.hpp>

#include "catch.hpp"
#include "io/damage.hpp"
#include "io/scratch.hpp"

#include <cstring>
#include <numeric>

using namespace atmanrl;
using namespace atmanrl_test;

namespace safetensors_test {
namespace {

std::string file_of(std::string const& header, std::string const& data) {
  std::uint64_t const n = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &n, 8);
  return bytes + header + data;
}

std::string const good_header =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})";

unsigned volatile touched = 0;

void read_everything(std::filesystem::path const& path) {
  safetensors_file const f(path);
  for (tensor_entry const& t : f.tensors()) {
    std::vector<float> out(std::size_t(t.size()));
    if (is_floating(t.type)) to_float(t, 0, out);
    for (std::byte const b : t.bytes) touched = touched ^ unsigned(b);
  }
}

}  // namespace

TEST_CASE("safetensors: what is written reads back, in every floating type") {
  scratch_folder const dir;
  std::vector<float> a(6), b{-1.5f};
  std::iota(a.begin(), a.end(), -2.0f);
  std::vector<named_tensor> const tensors{{"b", {}, b}, {"a", {2, 3}, a}, {"none", {0, 5}, {}}};
  for (dtype const t : {dtype::f32, dtype::f16, dtype::bf16, dtype::f64}) {
    save_safetensors(dir / "f", tensors, t, {{"key", "text"}});
    safetensors_file const f(dir / "f");
    REQUIRE(f.tensors().size() == 3);
    CHECK(f.metadata().at("key") == "text");
    tensor_entry const* const e = f.find("a");
    REQUIRE(e);
    CHECK(e->shape == std::vector<index_t>{2, 3});
    CHECK(e->type == t);
    std::vector<float> back(6);
    to_float(*e, 0, back);
    CHECK(back == a);
    back.resize(2);
    to_float(*e, 3, back);
    CHECK(back == std::vector<float>{1, 2});
    CHECK_THROWS_AS(to_float(*e, 5, back), shape_error);
    CHECK(f.find("none")->size() == 0);
    CHECK(f.find("b")->shape.empty());
    CHECK_FALSE(f.find("c"));
  }
}

TEST_CASE("safetensors: the streaming writer takes tensors in pieces, in order, and only whole") {
  scratch_folder const dir;
  std::vector<float> const values{1, 2, 3, 4};
  std::span<float const> const v(values);
  auto writer = [&] {
    return safetensors_writer(dir / "f",
                              {{"x", dtype::bf16, {3}}, {"empty", dtype::f32, {0}}, {"y", dtype::f32, {2, 1}}});
  };
  {
    auto w = writer();
    w.append("x", v.first(1));
    w.append("x", v.subspan(1, 2));
    CHECK_FALSE(std::filesystem::exists(dir / "f"));
    w.append_bytes("y", std::as_bytes(v.first(2)));
    w.finish();
    safetensors_file const f(dir / "f");
    std::vector<float> y(2);
    to_float(*f.find("y"), 0, y);
    CHECK(y == std::vector<float>{1, 2});
  }
  {
    auto w = writer();
    CHECK_THROWS_AS(w.append("y", v.first(2)), usage_error);
    CHECK_THROWS_AS(w.append("x", v), usage_error);
    w.append("x", v.first(3));
    CHECK(contains(complaint<usage_error>([&] { w.finish(); }), "y has 0 of 8 bytes"));
  }
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
  CHECK_THROWS_AS(safetensors_writer(dir / "g", {{"x", dtype::f32, {1}}, {"x", dtype::f32, {1}}}), usage_error);
  CHECK_THROWS_AS(safetensors_writer(dir / "g", {{"x", dtype::f32, {index_t(1) << 40, index_t(1) << 40}}}),
                  usage_error);
}

TEST_CASE("safetensors: every truncation and every added byte is refused") {
  scratch_folder const dir;
  std::string const whole = file_of(good_header, std::string(32, 'x'));
  check_every_truncation(dir / "f.safetensors", whole, read_everything);
  check_refused(dir / "f.safetensors", whole + "y", read_everything);
}

TEST_CASE("safetensors: a lying header length is refused") {
  scratch_folder const dir;
  std::string const whole = file_of(good_header, std::string(32, 'x'));
  for (std::uint64_t const n : huge) check_refused(dir / "f", overwritten(whole, 0, 8, n), read_everything);
  for (std::uint64_t const n : {std::uint64_t{0}, std::uint64_t{1}, whole.size() - 7, std::uint64_t(whole.size())}) {
    check_refused(dir / "f", overwritten(whole, 0, 8, n), read_everything);
  }
}

TEST_CASE("safetensors: every lying number in the header is refused") {
  scratch_folder const dir;
  int numbers = 0;
  for (std::size_t i = 0; i < good_header.size(); ++i) {
    // Numbers follow '[' or ','; the digits of "F32" do not.
    if (!std::isdigit(static_cast<unsigned char>(good_header[i])) ||
        (good_header[i - 1] != '[' && good_header[i - 1] != ','))
      continue;
    std::size_t const end = good_header.find_first_not_of("0123456789", i);
    ++numbers;
    for (char const* const lie :
         {"9223372036854775808", "18446744073709551615", "9223372036854775807", "4611686018427387904", "-1", "1e300",
          "2.0", "1000000", "null", "\"2\"", "18446744073709551616", "33", "7"}) {
      std::string const header = good_header.substr(0, i) + lie + good_header.substr(end);
      INFO(header);
      check_refused(dir / "f", file_of(header, std::string(32, 'x')), read_everything);
    }
  }
  CHECK(numbers == 7);
}

TEST_CASE("safetensors: malformed headers are refused with the field's name") {
  scratch_folder const dir;
  struct fault {
    std::string header, part;
  };
  std::vector<fault> const faults{
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[6],"data_offsets":[8,32]}})",
       "the tensor a is there twice"},
      {R"({"a":{"dtype":"F31","shape":[8],"data_offsets":[0,32]}})", "dtype \"F31\" is not known"},
      {R"({"a":{"dtype":7,"shape":[8],"data_offsets":[0,32]}})", "dtype is not a string"},
      {R"({"a":{"shape":[8],"data_offsets":[0,32]}})", "dtype is missing"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,32]}})", "shape is missing"},
      {R"({"a":{"dtype":"F32","shape":[8]}})", "data_offsets is missing"},
      {R"({"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32],"more":1}})", "unknown field more"},
      {R"({"a":{"dtype":"F32","shape":8,"data_offsets":[0,32]}})", "shape is not a list"},
      {R"({"a":{"dtype":"F32","shape":[8],"data_offsets":[0]}})", "data_offsets has 1 numbers"},
      {R"({"a":{"dtype":"F32","shape":[8],"data_offsets":[32,0]}})", "data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[9],"data_offsets":[0,32]}})", "needs 36 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,8],"data_offsets":[0,32]}})", "9 axes"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,32]}})", "too large"},
      {R"({"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}})", "too large"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[5],"data_offsets":[12,32]}})",
       "the tensor before ends at 16"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[3],"data_offsets":[20,32]}})",
       "the tensor before ends at 16"},
      {R"({"a":{"dtype":"F32","shape":[7],"data_offsets":[0,28]}})", "end at byte 28 of 32"},
      {R"({"a":{"dtype":"F32","shape":[7],"data_offsets":[4,32]}})", "begin at 4"},
      {R"({"__metadata__":{"x":1},"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}})", "__metadata__.x"},
      {R"({"__metadata__":3,"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}})", "__metadata__ is not"},
      {R"({"a":7})", "a: is not a JSON object"},
      {"{\"\xff\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,32]}}", "not valid JSON"},
      {R"([1])", "does not begin with {"},
      {R"({"a":)", "not valid JSON"},
      {"{\"a\":" + std::string(5000, '[') + "}", "deeper"},
  };
  for (auto const& f : faults) {
    put(dir / "f", file_of(f.header, std::string(32, 'x')));
    auto const text = complaint([&] { read_everything(dir / "f"); });
    INFO(f.header.substr(0, 200) << " -> " << text.value_or("(accepted)"));
    CHECK(contains(text, (dir / "f").string()));
    CHECK(contains(text, f.part));
  }
}

TEST_CASE("safetensors: random damage never does worse than an error") {
  scratch_folder const dir;
  std::string const path = (dir / "good").string();
  std::vector<float> const values(40, 1.0f);
  save_safetensors(path,
                   std::vector<named_tensor>{{"one", {5, 4}, std::span(values).first(20)}, {"two", {40}, values}});
  check_random_damage(dir / "bad", read_text_file(path), read_everything);
}

TEST_CASE("safetensors: an extent of 0 does not hide that the others are too large together") {
  scratch_folder const dir;
  // 2^62 * 2 * 0 bytes are none, but the size of the shape's first two axes fits no index.
  std::string const shape = "[4611686018427387904,2,0]";
  check_refused(dir / "f", file_of(R"({"a":{"dtype":"U8","shape":)" + shape + R"(,"data_offsets":[0,0]}})", ""),
                [](auto const& path) { safetensors_file f(path); });
  CHECK(contains(complaint([&] { safetensors_file f(dir / "f"); }), "is too large"));
  put(dir / "f", file_of(R"({"a":{"dtype":"U8","shape":[4611686018427387904,0],"data_offsets":[0,0]}})", ""));
  CHECK(safetensors_file(dir / "f").find("a")->size() == 0);
  CHECK_THROWS_AS(safetensors_writer(dir / "g", {{"a", dtype::u8, {index_t(1) << 62, 2, 0}}}), usage_error);
}

TEST_CASE("safetensors: an empty tensor is read without an address to read from") {
  scratch_folder const dir;
  put(dir / "f", file_of(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})", ""));
  safetensors_file const f(dir / "f");
  CHECK_NOTHROW(to_float(*f.find("a"), 0, {}));
  CHECK_NOTHROW(detail::widen(dtype::f32, nullptr, 0, nullptr));
  CHECK_NOTHROW(detail::narrow(dtype::f32, nullptr, 0, nullptr));
}

}  // namespace safetensors_test
