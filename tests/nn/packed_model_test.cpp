// A model whose matrices stay the blocks of a quantised file computes what the decoded one computes, to the bit.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"
#include "quantised_model.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace packed_model_test {
namespace {

constexpr int length = 40;
using model_type = llama<cpu_backend>;

struct setting {
  scratch_folder folder;
  std::filesystem::path path = folder / "model.gguf";
  std::vector<int> tokens = random_tokens(length, 256, 3);

  explicit setting(gguf_type (*type_of)(std::string_view) = mixed_types, bool tied = true) {
    write_quantised_model(path, quantised_config(tied), type_of);
  }
  model_type load(cpu_backend& backend, weight_storage how) const { return model_type::load(backend, path, {}, how); }
};

/// Log-probabilities of tokens[1..]: `prefill` rows at once, then each alone, beside another sequence.
std::vector<float> decoded_row_by_row(model_type& model, std::vector<int> const& tokens, int prefill) {
  auto cache = model.new_cache(2 * length);
  forward_pass<cpu_backend, float> pass(model.backend());
  int const prompt = cache.add_sequence(prefill), rollout = cache.add_child(prompt, prefill, length - prefill),
            other = cache.add_sequence(length);
  std::vector<float> got;
  ragged_batch batch;
  batch.add(prompt, std::span(tokens).first(std::size_t(prefill)));
  for (int i = 0; i + 1 < length;) {
    int const rows = i == 0 ? prefill : 1;
    model.forward(cache, batch, pass);
    std::vector<scored_token> scored;
    for (int r = 0; r < rows && i + r + 1 < length; ++r) scored.push_back({r, tokens[std::size_t(i + r + 1)]});
    model.log_probs(pass, scored);
    auto const log_p = pass.log_p();
    got.insert(got.end(), log_p.begin(), log_p.end());
    i += rows;
    if (i == length) break;
    batch.clear();
    batch.add(rollout, std::span(tokens).subspan(std::size_t(i), 1));
    batch.add(other, std::span(tokens).first(1));
  }
  return got;
}

}  // namespace

TEST_CASE(
    "packed model: log-probabilities have the bits of the decoded model, whatever the types, threads and batches") {
  auto const type = GENERATE(mixed_types, all_q8_0);
  setting const s(type, GENERATE(true, false));
  cpu_backend backend({.threads = 2});
  auto decoded = s.load(backend, weight_storage::full);
  auto const expected = teacher_forced(decoded, s.tokens);
  CHECK_FALSE(decoded.is_packed());
  for (int const threads : {1, 2, 3, 4}) {
    CAPTURE(threads);
    cpu_backend own({.threads = threads});
    auto packed = s.load(own, weight_storage::packed);
    CHECK(packed.is_packed());
    CHECK(teacher_forced(packed, s.tokens) == expected);
    CHECK(decoded_row_by_row(packed, s.tokens, 1 + 9 * (threads - 1)) == expected);
  }
  CHECK(read_parameters(s.load(backend, weight_storage::packed)) == read_parameters(decoded));
}

TEST_CASE("packed model: with int8 products, too, decoding has the bits of the training pass, with any threads") {
  setting const s;
  cpu_backend plain({.threads = 2}), one({.threads = 1, .int8_products = true});
  auto const decoded = [&] {
    auto model = s.load(plain, weight_storage::packed);
    return teacher_forced(model, s.tokens);
  }();
  auto model = s.load(one, weight_storage::packed);
  auto const expected = teacher_forced(model, s.tokens);
  double largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    largest = std::max(largest, std::abs(double(expected[i]) - double(decoded[i])));
  INFO("largest change of a log-probability " << largest);
  CHECK(largest > 0);
  CHECK(largest < 0.1);
  for (int const threads : {1, 2, 3, 4}) {
    CAPTURE(threads);
    cpu_backend own({.threads = threads, .int8_products = true});
    auto other = s.load(own, weight_storage::packed);
    CHECK(teacher_forced(other, s.tokens) == expected);
    CHECK(decoded_row_by_row(other, s.tokens, 1 + 9 * (threads - 1)) == expected);
  }
  // Tiles of AMX in software take the passes of many rows, vectors what is decoded.
  cpu_backend own({.threads = 3, .int8_products = true, .int8_instructions = byte_products::amx_twin});
  auto by_tiles = s.load(own, weight_storage::packed);
  CHECK(teacher_forced(by_tiles, s.tokens) == expected);
  CHECK(decoded_row_by_row(by_tiles, s.tokens, 19) == expected);
}

TEST_CASE("packed model: adapters over packed matrices are trained as over decoded ones") {
  setting const s;
  cpu_backend backend({.threads = 2});
  auto const results = [&](weight_storage how) {
    auto model = s.load(backend, how);
    model.attach({.rank = 3, .alpha = 6}, 4);
    std::vector<float> values(std::size_t(model.trainable_layout().size()));
    auto const drawn = random_values(index_t(values.size()), 5, 0.05);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = float(drawn[i]);
    tensor<cpu_backend, float, 1> flat(backend, {index_t(values.size())});
    flat.assign(values);
    model.assign_trainable(flat.cview());
    laid_out<cpu_backend, float> on(backend, model.config(), ragged_tree(256));
    forward_pass<cpu_backend, float> pass(backend);
    model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::parameters});
    auto const scored = score_all(on.batch.rows(), 256);
    model.log_probs(pass, scored, 1, true);
    std::vector<float> out = pass.log_p();
    auto const weights = converted<float>(random_values(index_t(scored.size()), 7));
    auto gradient = tensor<cpu_backend, float, 1>::zeros(backend, {model.trainable_layout().size()});
    tensor<cpu_backend, float, 2> input(backend, {on.batch.rows(), model.config().hidden});
    model.backward(on.cache, pass, {.log_p = weights, .entropy = weights},
                   {.parameters = gradient.view(), .input = input.view()});
    for (auto const& more : {gradient.to_host(), input.to_host()}) out.insert(out.end(), more.begin(), more.end());
    // Merged, and without the adapters: the reference of training.
    parameter_info const& p = *model.layout().find("model.layers.1.self_attn.v_proj.weight");
    tensor<cpu_backend, float, 2> merged(backend, {p.rows, p.columns});
    model.read_rows(p, 0, merged.view(), adapters::on);
    laid_out<cpu_backend, float> off(backend, model.config(), ragged_tree(256));
    model.forward(off.cache, off.batch, pass, {.adapters = adapters::off});
    model.log_probs(pass, scored);
    for (auto const& more : {merged.to_host(), pass.log_p()}) out.insert(out.end(), more.begin(), more.end());
    return out;
  };
  CHECK(results(weight_storage::packed) == results(weight_storage::full));
}

TEST_CASE("packed model: it takes the memory of its file") {
  setting const s(all_q8_0);
  cpu_backend backend({.threads = 1});
  auto const model = s.load(backend, weight_storage::packed);
  // Gains, and the rows that fill the embedding's last panel, beside what the file has; half of the blocks are not
  // there twice.
  CHECK(backend.allocated_bytes() < std::size_t(1.1 * double(std::filesystem::file_size(s.path))));
}

TEST_CASE("packed model: weights that cannot be trained or stored are refused in a sentence") {
  setting const s;
  cpu_backend backend({.threads = 1});
  auto model = s.load(backend, weight_storage::packed);
  tensor<cpu_backend, float, 1> flat(backend, {model.layout().size()});
  char const* const sentence = "the weights of a packed model are not trained: attach adapters";
  CHECK_THROWS_WITH(model.read_trainable(flat.view()), ATMANRL_CONTAINS(sentence));
  CHECK_THROWS_WITH(model.assign_trainable(flat.cview()), ATMANRL_CONTAINS(sentence));
  laid_out<cpu_backend, float> on(backend, model.config(), ragged_tree(256));
  forward_pass<cpu_backend, float> pass(backend);
  CHECK_THROWS_WITH(model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::parameters}),
                    ATMANRL_CONTAINS(sentence));
  CHECK_THROWS_WITH(model.assign(flat.cview()), ATMANRL_CONTAINS("a packed weight of Q6_K cannot be changed"));
  CHECK_THROWS_WITH(llama<cpu_backend>(backend, model.config(), {}, weight_storage::packed),
                    ATMANRL_CONTAINS("a packed model is loaded from a quantised file"));
  reference_backend plain;
  CHECK_THROWS_WITH((llama<reference_backend>::load(plain, s.path, {}, weight_storage::packed)),
                    ATMANRL_CONTAINS("on the reference backend cannot stay the blocks of a quantised file"));
}

}  // namespace packed_model_test
