// A prompt that is computed once and shared, against one pass over each whole sequence, under every policy.
#include <atmanrl/attention/knockout.hpp>
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/attention/suppress.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace cached_path_test {
namespace {

/// Two continuations of one prompt: chains of thought of 5 and 3 tokens with 4 tokens after them.
template <class B>
struct cached_path {
  using T = typename llama<B, float>::scalar;
  B backend{};
  llama<B, float> model = random_model<B, float>(backend, rich_config(), 4, 1.5);
  std::vector<int> prompt = random_tokens(4, 11, 1);
  std::vector<std::vector<int>> tails{random_tokens(9, 11, 2), random_tokens(7, 11, 3)};

  /// Every row of a tail that begins at batch row `first`, with targets that depend on the tail alone.
  std::vector<scored_token> scored(int tail, int first) const {
    std::vector<scored_token> s;
    for (int r = 0; r < int(tails[std::size_t(tail)].size()); ++r) s.push_back({first + r, (r * 3 + tail) % 11});
    return s;
  }

  /// Log-probabilities after the rows of both continuations. The policy edits no row of the prompt.
  template <class P>
  std::vector<T> shared(P const& policy, view_on<B, T const, 1> values) {
    kv_cache<B, T> cache(backend, model.config(), 20);
    forward_pass<B, T> pass(backend);
    ragged_batch first, rest;
    int const root = cache.add_sequence(4);
    first.add(root, prompt);
    model.forward(cache, first, pass);
    for (int i = 0; i < 2; ++i)
      rest.add(cache.add_child(root, 4, index_t(tails[std::size_t(i)].size())), tails[std::size_t(i)], i);
    model.forward(cache, rest, pass, {}, edited{policy, values});
    auto both = scored(0, 0);
    for (scored_token const& t : scored(1, 9)) both.push_back(t);
    model.log_probs(pass, both);
    return pass.log_p();
  }
  template <class P>
  std::vector<T> whole(P const& policy, view_on<B, T const, 1> values) {
    std::vector<T> all;
    for (int i = 0; i < 2; ++i) {
      auto ids = prompt;
      ids.insert(ids.end(), tails[std::size_t(i)].begin(), tails[std::size_t(i)].end());
      kv_cache<B, T> cache(backend, model.config(), 13);
      forward_pass<B, T> pass(backend);
      ragged_batch batch;
      batch.add(cache.add_sequence(index_t(ids.size())), ids, i);
      model.forward(cache, batch, pass, {}, edited{policy, values});
      model.log_probs(pass, scored(i, 4));
      auto const log_p = pass.log_p();
      all.insert(all.end(), log_p.begin(), log_p.end());
    }
    return all;
  }

  template <class P>
  void check(char const* name, P const& policy, std::vector<T> const& values = {}) {
    INFO(B::name << ", " << name);
    tensor<B, T, 1> h(backend, {index_t(values.size())});
    h.assign(values);
    CHECK(shared(policy, h.cview()) == whole(policy, h.cview()));
  }

  void check_all() {
    std::vector<key_selection> const chosen{{.key_begin = 4, .key_end = 9, .first_row = 4, .chosen = {1, 0, 0, 1, 1}},
                                            select_keys(5, 7, 7)};
    std::span<key_selection const> const view(chosen);
    check("none", attention::none{});
    check("knockout", attention::knockout(backend, view));
    check("suppress", attention::suppress(backend, view));
    check("suppress_log", attention::suppress_log(backend, view));
    for (mask_sharing const sharing : {mask_sharing::all, mask_sharing::per_layer, mask_sharing::per_head})
      for (mask_shape const shape : {mask_shape::pair, mask_shape::column})
        for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
          mask_edit const edit{.sites = {.sharing = sharing, .model_layers = 2, .heads = 4}};
          mask_extent const first = make_mask_extent(shape, rows, 4, 9, 13, 0, edit.sites.copies());
          std::vector<mask_extent> const masks{
              first, make_mask_extent(shape, rows, 4, 7, 11, first.count, edit.sites.copies())};
          attention::learned_mask<B> const policy(backend, shape, masks, edit);
          check("learned_mask", policy, converted<T>(random_values(policy.parameter_count(), 5, 0.3)));
        }
  }
};

}  // namespace

TEMPLATE_TEST_CASE("attention policy: a prompt computed once gives the bits of whole sequences, under every policy", "",
                   reference_backend, cpu_backend) {
  cached_path<TestType> paths;
  paths.check_all();
}

TEST_CASE("attention policy: knocking a token out of all later rows of one layer removes what it says") {
  // In a model of one layer the rows after a token see it through attention alone: with the token knocked out, another
  // token in its place gives the same bits.
  model_config one = rich_config();
  one.layers = 1;
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, one, 4, 1.5);
  std::vector<key_selection> const third{select_keys(2, 3, 3)};
  attention::knockout const policy(backend, std::span<key_selection const>(third));
  auto const run = [&](int token, auto const& edit) {
    std::vector<int> const ids{3, 5, token, 7, 2, 8};
    kv_cache<reference_backend, double> cache(backend, one, 6);
    forward_pass<reference_backend, double> pass(backend);
    ragged_batch batch;
    batch.add(cache.add_sequence(6), ids, 0);
    model.forward(cache, batch, pass, {}, edited{edit});
    model.log_probs(pass, std::vector<scored_token>{{3, 1}, {4, 2}, {5, 3}});
    return pass.log_p();
  };
  CHECK(run(4, policy) == run(9, policy));
  CHECK(run(4, attention::none{}) != run(9, attention::none{}));
}

}  // namespace cached_path_test
