// A safetensors file: header, metadata, every tensor as floats.
#include "fuzz/tensors.hpp"

namespace atmanrl_fuzz::safetensors_target {
namespace {

using namespace atmanrl;

void run(std::string const& input) {
  static scratch_file const file("f.safetensors");
  accepted(file.text(), [&] { read_everything(file.holding(input)); });
}

void corpus(seeds& out) {
  out.fixture("io/types.safetensors");
  out.fixture("lora/some/adapter_model.safetensors");
  out.add(small_safetensors(R"({"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}})", 8));
  out.add(small_safetensors(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},)"
                            R"("b":{"dtype":"F16","shape":[],"data_offsets":[4,6]},)"
                            R"("c":{"dtype":"I64","shape":[0,3],"data_offsets":[6,6]}})",
                            6));
  out.add(small_safetensors(R"({"a":{"dtype":"U8","shape":[4611686018427387904,2,0],"data_offsets":[0,0]}})", 0));
}

void mutate(std::string& bytes, std::size_t most, unsigned seed) { mutate_framed(bytes, 0, 0, most, seed); }

registered const here{{.name = "safetensors", .run = run, .corpus = corpus, .times = json_times, .mutate = mutate}};

}  // namespace
}  // namespace atmanrl_fuzz::safetensors_target
