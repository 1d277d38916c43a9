// Attention edits that belong to a model: what it computes with one equals what a plain model computes when the edit is
// given to each call, and an edit's own parameters are trained with the others.
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/nn/decoder.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"
#include "small_model.hpp"
#include "strangers.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace held_edit_test {
namespace {

using plain_model = decoder<reference_backend, double>;
template <class Edit>
using model_with = decoder<reference_backend, double, standard_block, Edit>;

struct scores {
  std::vector<double> log_p, gradient, edit_gradient;  ///< the last one summed over key-value heads
};

/// Two rollouts under one prompt, every token after the first scored; the gradient of their weighted sum.
template <class Model, class P = attention::none>
scores run(Model& model, P const& policy = {}, std::vector<double> const& values = {},
           gradient_mode mode = gradient_mode::parameters) {
  reference_backend& backend = model.backend();
  std::vector<branch> const tree{
      {-1, 0, random_tokens(4, 11, 1)}, {0, 4, random_tokens(5, 11, 2)}, {0, 4, random_tokens(3, 11, 3)}};
  laid_out<reference_backend, double> space(backend, model.config(), tree);
  forward_pass<reference_backend, double> pass(backend);
  tensor<reference_backend, double, 1> edit_values(backend, {index_t(values.size())});
  edit_values.assign(values);
  model.forward(space.cache, space.batch, pass, {.mode = mode}, edited{policy, edit_values.cview()});
  model.log_probs(pass, score_all(int(pass.rows()), 11));
  auto const dlog_p = random_values(index_t(pass.log_p().size()), 9);
  index_t const parameters = mode == gradient_mode::parameters ? model.layout().size() : 0;
  auto gradient = tensor<reference_backend, double, 1>::zeros(backend, {parameters});
  auto edit_gradient =
      tensor<reference_backend, double, 2>::zeros(backend, {model.config().kv_heads, index_t(values.size())});
  model.backward(space.cache, pass, {.log_p = dlog_p}, {.parameters = gradient.view(), .edit = edit_gradient.view()},
                 edited{policy, edit_values.cview()});
  std::vector<double> summed(values.size());
  for (index_t h = 0; h < model.config().kv_heads; ++h)
    for (std::size_t i = 0; i < values.size(); ++i) summed[i] += edit_gradient.view()(h, index_t(i));
  return {pass.log_p(), gradient.to_host(), summed};
}

template <class Model>
void fill(Model& model, std::vector<double> flat, std::vector<double> const& edit_values = {}) {
  flat.insert(flat.end(), edit_values.begin(), edit_values.end());
  tensor<reference_backend, double, 1> on_backend(model.backend(), {index_t(flat.size())});
  on_backend.assign(flat);
  model.assign(on_backend.cview());
}

/// A factor for each distance below 3; all three sequences have some.
strangers::distance_factors const factors{3, 3};
std::vector<double> factor_values() {
  auto v = random_values(9, 21, 0.3);
  for (double& x : v) x += 1;
  return v;
}

}  // namespace

TEST_CASE("held edit: a model with an edit computes what a plain one does when the edit is given to its calls") {
  reference_backend backend;
  auto const parameters = random_parameters(rich_config());
  plain_model plain(backend, rich_config());
  model_with<strangers::capped_recency> with(backend, rich_config(), strangers::capped_recency{0.5f});
  fill(plain, parameters);
  fill(with, parameters);
  scores const expected = run(plain, strangers::capped_recency{0.5f}), got = run(with);
  CHECK(got.log_p == expected.log_p);
  CHECK(got.gradient == expected.gradient);
  CHECK(relative_difference(run(plain).log_p, expected.log_p) > 1e-3);  // and the edit does something
}

TEST_CASE("held edit: its parameters stand after the model's and get their gradient with them") {
  reference_backend backend;
  auto const parameters = random_parameters(rich_config());
  plain_model plain(backend, rich_config());
  model_with<strangers::distance_factors> with(backend, rich_config(), factors);
  fill(plain, parameters);
  fill(with, parameters, factor_values());
  parameter_info const& p = *with.layout().find("attention_edit");
  REQUIRE(p.offset == plain.layout().size());
  REQUIRE(p.size() == 9);
  REQUIRE(with.layout().size() == plain.layout().size() + 9);

  scores const expected = run(plain, factors, factor_values()), got = run(with);
  CHECK(got.log_p == expected.log_p);
  std::vector<double> own(got.gradient.begin(), got.gradient.begin() + p.offset),
      of_edit(got.gradient.begin() + p.offset, got.gradient.end());
  CHECK(own == expected.gradient);
  CHECK(relative_difference(of_edit, expected.edit_gradient) < 1e-14);
  CHECK(relative_difference(of_edit, std::vector<double>(9)) == INFINITY);  // not all zero
  // Activations alone: nothing is asked for, and nothing written.
  CHECK(run(with, attention::none{}, {}, gradient_mode::activations).gradient.empty());
}

TEST_CASE("held edit: its parameters come back from the model as they were given to it") {
  reference_backend backend;
  model_with<strangers::distance_factors> with(backend, small_config(), factors);
  fill(with, random_parameters(small_config()), factor_values());
  tensor<reference_backend, double, 1> flat(backend, {with.layout().size()});
  with.read(flat.view());
  auto const all = flat.to_host();
  CHECK(std::vector<double>(all.end() - 9, all.end()) == factor_values());
}

TEST_CASE(
    "held edit: while a caller trains a mask, the model's own edit acts at its values and the mask has its gradient") {
  reference_backend backend;
  auto const parameters = random_parameters(rich_config());
  model_with<strangers::distance_factors> with(backend, rich_config(), factors);
  fill(with, parameters, factor_values());
  // The sequence with the tag 1: 4 prompt tokens, 3 that are masked, 2 after them.
  std::vector<mask_extent> const extents{mask_extent{},
                                         make_mask_extent(mask_shape::pair, mask_rows::all_later, 4, 7, 9, 0)};
  attention::learned_mask<reference_backend> const mask(backend, mask_shape::pair, extents, 2.0f);
  auto values = random_values(mask.parameter_count(), 33, 0.5);
  for (double& x : values) x = -std::abs(x) - 0.1;
  scores const got = run(with, mask, values);

  // The same as one edit that the caller gives to a plain model.
  plain_model plain(backend, rich_config());
  fill(plain, parameters);
  auto const fixed = factor_values();
  attention::frozen<strangers::distance_factors, double> const frozen{factors, fixed.data()};
  auto const both =
      attention::composed(frozen, attention::by_reference<attention::learned_mask<reference_backend>>{mask});
  scores const expected = run(plain, both, values);
  CHECK(got.log_p == expected.log_p);
  CHECK(got.edit_gradient == expected.edit_gradient);

  // And by difference quotients, through the model with its own edit.
  auto const weights = random_values(index_t(got.log_p.size()), 9);
  for (std::size_t const i : {std::size_t{0}, values.size() / 2, values.size() - 1}) {
    double quotient = 0;
    for (double const h : {1e-5, -1e-5}) {
      auto moved = values;
      moved[i] += h;
      quotient += weighted_sum(run(with, mask, moved).log_p, weights) / (2 * h);
    }
    CAPTURE(i);
    CHECK(got.edit_gradient[i] == Approx(quotient).epsilon(1e-6).margin(1e-9));
  }
  // The parameters of the model's own edit are constants meanwhile.
  std::vector<double> const of_edit(got.gradient.end() - 9, got.gradient.end());
  CHECK(of_edit == std::vector<double>(9));
}

TEST_CASE("held edit: its parameters are saved beside the model and read back, and nobody ignores them") {
  reference_backend backend;
  model_config c = rich_config();
  c.qkv_bias = false;                              // Hugging Face's folders of Llama have all biases or none
  auto const stored = [](std::vector<double> v) {  // as a file of floats keeps them
    for (double& x : v) x = double(float(x));
    return v;
  };
  model_with<strangers::distance_factors> with(backend, c, factors);
  fill(with, stored(random_parameters(c)), stored(factor_values()));
  row_source const rows = [&](std::string_view name, index_t first, index_t count, std::span<float> out) {
    parameter_info const& p = *with.layout().find(name);
    tensor<reference_backend, double, 2> values(backend, {p.is_vector() ? 1 : count, p.columns});
    with.read_rows(p, p.is_vector() ? 0 : first, values.view());
    auto const all = values.to_host();
    std::copy_n(all.begin() + (p.is_vector() ? first : 0), out.size(), out.begin());
  };
  scratch_folder const folder;
  auto const save = [&](std::vector<double> const& values) {
    save_hugging_face_folder(folder / "m", with.config(), with.kind(), rows,
                             {.type = dtype::f32, .attention_edit = std::vector<float>(values.begin(), values.end())});
  };
  save(factor_values());
  CHECK(std::filesystem::exists(folder / "m" / "attention_edit.safetensors"));
  auto loaded = decltype(with)::load(backend, folder / "m", factors);
  scores const expected = run(with), got = run(loaded);
  CHECK(got.log_p == expected.log_p);
  CHECK(got.gradient == expected.gradient);

  CHECK_THROWS_WITH(plain_model::load(backend, folder / "m"),
                    ATMANRL_CONTAINS("attention_edit.safetensors: holds 9 values of an attention edit, but the model "
                                     "of this program has no edit with parameters"));
  using with_fixed = model_with<strangers::capped_recency>;
  CHECK_THROWS_WITH(with_fixed::load(backend, folder / "m"), ATMANRL_CONTAINS("has no edit with parameters"));
  CHECK_THROWS_WITH(decltype(with)::load(backend, folder / "m", strangers::distance_factors{3, 4}),
                    ATMANRL_CONTAINS("holds 9 values of an attention edit, but that of this program's model has 12"));

  // A model that was saved without one begins at zero, and replaces the older folder with its file.
  save({});
  CHECK_FALSE(std::filesystem::exists(folder / "m" / "attention_edit.safetensors"));
  auto fresh = decltype(with)::load(backend, folder / "m", factors);
  fill(with, stored(random_parameters(c)), std::vector<double>(9));
  CHECK(run(fresh).log_p == run(with).log_p);
  CHECK_NOTHROW(plain_model::load(backend, folder / "m"));

  // A file of other things is none of ours.
  std::filesystem::copy_file(folder / "m" / "model.safetensors", folder / "m" / "attention_edit.safetensors");
  CHECK_THROWS_WITH(decltype(with)::load(backend, folder / "m", factors),
                    ATMANRL_CONTAINS("must hold the tensor attention_edit"));
}

}  // namespace held_edit_test
