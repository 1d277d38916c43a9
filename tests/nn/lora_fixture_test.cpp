// Adapters against the PEFT library: its folders are read, what is written here it can read (make_lora_fixtures.py).
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/nn/decoder.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "io/scratch.hpp"
#include "test_data.hpp"

#include <cstdlib>

using namespace atmanrl;
using namespace atmanrl_test;

namespace lora_fixture_test {
namespace {

std::vector<float> values_of(safetensors_file const& file, std::string const& name) {
  tensor_entry const* const t = file.find(name);
  REQUIRE(t != nullptr);
  std::vector<float> values(std::size_t(t->size()));
  to_float(*t, 0, values);
  return values;
}

/// The fixture's sequences side by side, run through a model.
template <class B>
struct run {
  llama<B>& model;
  forward_pass<B, float> pass{model.backend()};
  kv_cache<B, float> cache{model.backend(), model.config(), 64};
  std::vector<scored_token> scored;
  std::vector<int> rows;

  run(llama<B>& m, gradient_mode mode) : model(m) {
    ragged_batch batch;
    json const fixtures = read_json_file(fixture("llama") / "tied.json");
    for (auto const& sequence : fixtures.at("sequences")) {
      std::vector<int> const ids = sequence;
      int const first = batch.add(cache.add_sequence(index_t(ids.size())), ids);
      for (int i = 0; i < int(ids.size()); ++i) rows.push_back(first + i);
      for (int i = 1; i < int(ids.size()); ++i) scored.push_back({first + i - 1, ids[std::size_t(i)]});
    }
    model.forward(cache, batch, pass, {.mode = mode});
  }
  std::vector<float> logits() {
    tensor<B, float, 2> out;
    model.logits(pass, rows, out);
    return out.to_host();
  }
};

template <class B>
void check_adapter(std::string const& name) {
  CAPTURE(name, B::name);
  B backend;
  auto model = llama<B>::load(backend, fixture("llama") / "tied");
  auto const plain = run<B>(model, gradient_mode::none).logits();
  model.load_adapters(fixture("lora") / name);
  safetensors_file const expected(fixture("lora") / (name + ".safetensors"));
  run<B> r(model, gradient_mode::parameters);
  auto const logits = r.logits();
  CHECK(relative_difference(logits, values_of(expected, "logits")) < 1e-5);
  CHECK(relative_difference(logits, plain) > 0.05);

  model.log_probs(r.pass, r.scored);
  double loss = 0;
  for (float const x : r.pass.log_p()) loss -= double(x) / double(r.scored.size());
  CHECK(loss == Approx(values_of(expected, "loss")[0]).epsilon(1e-6));
  std::vector<float> const dlog_p(r.scored.size(), -1.0f / float(r.scored.size()));
  auto gradient = tensor<B, float, 1>::zeros(backend, {model.trainable_layout().size()});
  model.backward(r.cache, r.pass, {.log_p = dlog_p}, {.parameters = gradient.view()});
  auto const flat = gradient.to_host();
  CHECK(model.trainable_layout().all().size() + 2 == expected.tensors().size());
  for (parameter_info const& p : model.trainable_layout().all()) {
    CAPTURE(p.name);
    CHECK(relative_difference(std::span(flat).subspan(std::size_t(p.offset), std::size_t(p.size())),
                              values_of(expected, p.name)) < 1e-4);
  }
}

/// A copy of a fixture's folder that may be damaged.
struct copied {
  scratch_folder scratch;
  std::filesystem::path folder = scratch / "adapter";
  json config;

  copied() {
    std::filesystem::copy(fixture("lora") / "some", folder, std::filesystem::copy_options::recursive);
    config = read_json_file(folder / "adapter_config.json");
  }
  std::optional<std::string> with(char const* field, json value) const {
    json changed = config;
    if (value.is_discarded())
      changed.erase(field);
    else
      changed[field] = std::move(value);
    put(folder / "adapter_config.json", changed.dump());
    auto const base = model_file::open(fixture("llama") / "tied", standard_architectures());
    return complaint([&] { peft_adapter(folder, base.config(), base.kind()); });
  }
};

}  // namespace

TEST_CASE("peft: an adapter folder of the PEFT library gives its logits, its loss and its gradients") {
  for (char const* const name : {"all", "some"}) {
    check_adapter<reference_backend>(name);
    check_adapter<cpu_backend>(name);
  }
}

TEST_CASE("peft: a folder written here holds the values of the one that was read, and merging writes the same model") {
  scratch_folder const scratch;
  // For make_lora_fixtures.py --check, which shows the files to PEFT and transformers.
  char const* const named = std::getenv("ATMANRL_LORA_EXPORT");
  std::filesystem::path const out = named ? std::filesystem::path(named) : scratch.path();
  std::filesystem::create_directories(out);
  cpu_backend backend;
  auto model = llama<cpu_backend>::load(backend, fixture("llama") / "tied");
  model.load_adapters(fixture("lora") / "some");
  auto const logits = run<cpu_backend>(model, gradient_mode::none).logits();

  tensor<cpu_backend, float, 1> flat(backend, {model.trainable_layout().size()});
  model.read_trainable(flat.view());
  save_peft_folder(out / "adapter", model.config(), model.kind(), *model.adapter_config(),
                   [&](std::string_view name, std::span<float> to) {
                     for (parameter_info const& p : model.trainable_layout().all())
                       if (p.name == name) std::copy_n(flat.data() + p.offset, p.size(), to.data());
                   });
  CHECK(read_peft_config(out / "adapter") == read_peft_config(fixture("lora") / "some"));
  safetensors_file const theirs(fixture("lora") / "some" / "adapter_model.safetensors"),
      ours(out / "adapter" / "adapter_model.safetensors");
  CHECK(ours.tensors().size() == theirs.tensors().size());
  for (tensor_entry const& t : theirs.tensors()) {
    INFO(t.name);
    CHECK(values_of(ours, t.name) == values_of(theirs, t.name));
    CHECK(ours.find(t.name)->shape == t.shape);
  }

  row_source const rows = [&](std::string_view name, index_t first, index_t count, std::span<float> to) {
    for (parameter_info const& p : model.layout().all())
      if (p.name == name)
        model.read_rows(p, first, {to.data(), {p.is_vector() ? 1 : count, p.is_vector() ? count : p.columns}},
                        adapters::on);
  };
  save_hugging_face_folder(out / "merged", model.config(), model.kind(), rows, {.type = dtype::f32});
  auto again = llama<cpu_backend>::load(backend, out / "merged");
  CHECK(relative_difference(run<cpu_backend>(again, gradient_mode::none).logits(), logits) < 1e-5);
  named_tensor const all{"logits", {31, model.config().vocab}, logits};
  save_safetensors(out / "logits.safetensors", {&all, 1});
}

TEST_CASE("peft: what is not plain LoRA is refused by the name of its field") {
  copied const c;
  CHECK_FALSE(c.with("lora_dropout", 0.5).has_value());
  for (auto const& [field, value] :
       std::vector<std::pair<char const*, json>>{{"peft_type", "IA3"},
                                                 {"use_rslora", true},
                                                 {"use_dora", true},
                                                 {"bias", "all"},
                                                 {"rank_pattern", {{"q_proj", 4}}},
                                                 {"alpha_pattern", {{"q_proj", 4}}},
                                                 {"modules_to_save", {"lm_head"}},
                                                 {"layers_to_transform", {0}},
                                                 {"fan_in_fan_out", true},
                                                 {"lora_bias", true},
                                                 {"layer_replication", json::array({json::array({0, 1})})},
                                                 {"init_lora_weights", "pissa"},
                                                 {"r", 0},
                                                 {"r", 2.5},
                                                 {"r", "3"},
                                                 {"lora_alpha", "x"},
                                                 {"lora_alpha", 0},
                                                 {"lora_dropout", 1.5},
                                                 {"target_modules", ".*_proj"},
                                                 {"target_modules", json::array()},
                                                 {"target_modules", {"lm_head"}},
                                                 {"target_modules", {"q_proj", "q_proj"}},
                                                 {"target_modules", nullptr},
                                                 {"trainable_token_indices", {1}}}) {
    auto const said = c.with(field, value);
    INFO(field << " " << value);
    CHECK(contains(said, "adapter_config.json"));
    bool const named =
        contains(said, field) || contains(said, field + (std::string_view(field).starts_with("lora_") ? 5 : 0));
    CHECK(named);
  }
  for (char const* const field : {"peft_type", "r", "lora_alpha", "target_modules"}) {
    INFO(field);
    CHECK(contains(c.with(field, json(json::value_t::discarded)), fmt::format("{} is missing", field)));
  }
  // All matrices are meant; the folder has tensors for some.
  CHECK(contains(c.with("target_modules", "all-linear"), "k_proj.lora_A.weight is missing"));
}

TEST_CASE("peft: tensors that do not fit the model are refused by name") {
  cpu_backend backend;
  auto model = llama<cpu_backend>::load(backend, fixture("llama") / "tied");
  auto other = llama<cpu_backend>::load(backend, fixture("llama") / "untied");
  auto const load = [&](llama<cpu_backend>& m, std::filesystem::path const& folder) {
    return complaint([&] { m.load_adapters(folder); });
  };
  CHECK(contains(load(other, fixture("lora") / "all"), "lora_B.weight is ("));
  copied const c;
  c.with("r", 4);
  CHECK(contains(load(model, c.folder), "lora_A.weight is (3, 32) but the model and the rank ask for (4, 32)"));
  c.with("target_modules", {"q_proj", "v_proj", "o_proj", "up_proj", "down_proj"});
  CHECK(contains(load(model, c.folder), "down_proj.lora_A.weight is missing"));
  c.with("target_modules", {"q_proj", "v_proj", "o_proj"});
  CHECK(contains(load(model, c.folder), "up_proj.lora_A.weight belongs to none"));
  CHECK(contains(load(model, c.scratch / "nowhere"), "adapter_config.json"));
  CHECK_FALSE(model.has_adapters());
  put(c.folder / "notes.txt", "mine");
  CHECK(contains(complaint([&] { save_peft_folder(c.folder, model.config(), model.kind(), {}, [](auto, auto) {}); }),
                 "notes.txt"));
}

}  // namespace lora_fixture_test
