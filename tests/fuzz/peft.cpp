// A PEFT folder for a small model: adapter_config.json, and after a NUL adapter_model.safetensors.
#include <atmanrl/io/peft.hpp>

#include "fuzz/models.hpp"
#include "fuzz/tensors.hpp"

namespace atmanrl_fuzz::peft_target {
namespace {

using namespace atmanrl;

model_config const& model() {
  static model_config const c = parse_hugging_face_config(parse_json(sound_config, "config.json"), nullptr,
                                                          standard_architectures(), "config.json");
  return c;
}

void run(std::string const& input) {
  static scratch_file const config("peft/adapter_config.json"), tensors("peft/adapter_model.safetensors");
  static std::string const folder = config.path().parent_path().string();
  auto const [first, second] = halves(input);
  config.holding(first);
  tensors.holding(second);
  accepted(folder, [&] {
    architecture const& kind = standard_kind(model());
    peft_adapter const adapter(folder, model(), kind);
    std::vector<float> values;
    for (lora_tensor const& t : lora_tensors(model(), kind, adapter.config())) {
      values.resize(std::size_t(t.rows * t.columns));
      adapter.read(t.name, values);
    }
    promise(std::isfinite(adapter.config().scaling()) && adapter.config().scaling() > 0, "the scaling is positive");
  });
}

/// What the library writes itself.
std::string saved(lora_config const& l) {
  auto const folder = scratch("saved_peft/adapter_config.json").parent_path();
  save_peft_folder(folder, model(), standard_kind(model()), l,
                   [](std::string_view, std::span<float> out) { std::ranges::fill(out, 0.5f); });
  return read_text_file(folder / "adapter_config.json") + std::string(1, '\0') +
         read_text_file(folder / "adapter_model.safetensors");
}

void corpus(seeds& out) {
  out.add(saved({.rank = 1, .targets = {"q_proj"}}));
  out.add(saved({.rank = 2, .alpha = 0.5, .targets = {"down_proj", "v_proj"}, .dropout = 0.1}));
  std::string all = saved({.rank = 1});
  out.add(all);
  out.fixture("lora/some/adapter_config.json");
  out.add(R"({"peft_type":"LORA","r":1,"lora_alpha":1,"target_modules":"all-linear"})" + all.substr(all.find('\0')));
}

void mutate(std::string& bytes, std::size_t most, unsigned seed) {
  std::size_t const cut = bytes.find('\0');
  if (cut == bytes.npos || seed % 2 == 0)
    mutate_part(bytes, 0, std::min(cut, bytes.size()), most);
  else
    mutate_framed(bytes, cut + 1, 0, most, seed / 2);
}

registered const here{{.name = "peft", .run = run, .corpus = corpus, .times = json_times, .mutate = mutate}};

}  // namespace
}  // namespace atmanrl_fuzz::peft_target
