#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/nn/prefix_tree_batch.hpp>

#include "catch.hpp"

#include <array>
#include <utility>
#include <vector>

using namespace atmanrl;
namespace prefix_tree_batch_test {

using shared = prefix_tree_batch::shared;
static constexpr int none = -1;

namespace {
std::vector<std::pair<int, int>> pairs(prefix_tree_batch const& tree) {
  std::vector<std::pair<int, int>> out;
  for (scored_token const& s : tree.scored()) out.push_back({s.row, s.target});
  return out;
}
std::vector<int> tokens(ragged_batch const& batch) { return {batch.tokens().begin(), batch.tokens().end()}; }
using list = std::vector<std::pair<int, int>>;

/// Remembers the batches that it was asked to compute.
struct recording_model {
  std::vector<std::vector<int>> batches;
  template <class Cache>
  void forward(Cache& cache, ragged_batch const& batch, int&) {
    batches.push_back(tokens(batch));
    for (auto const& e : batch.entries()) cache.extend(e.sequence, e.rows);
  }
};

kv_cache<reference_backend, float> cache_of(reference_backend& backend, index_t rows) {
  model_config config;
  config.layers = 1;
  config.kv_heads = 1;
  config.head_dim = 2;
  return {backend, config, rows};
}
}  // namespace

TEST_CASE("prefix_tree_batch: a prompt once, its completions as children without a row for their last token") {
  prefix_tree_batch tree;
  std::vector const prompt{1, 2, 3}, a{4, 5, 6}, b{7};
  int const root = tree.root(prompt, shared::with_last);
  CHECK(root == 0);
  CHECK(tree.score(root, {}, a, 10) == 1);
  CHECK(tree.score(tree.root(prompt, shared::with_last), {}, b, 11) == root);  // one token needs no sequence
  CHECK(tree.score(root, {}, std::array{8, 9}, 12) == 2);
  CHECK(tokens(tree.batch()) == std::vector{1, 2, 3, 4, 5, 8});
  CHECK(pairs(tree) == list{{2, 4}, {3, 5}, {4, 6}, {2, 7}, {2, 8}, {5, 9}});
  CHECK(tree.cache_rows() == 6);
  REQUIRE(tree.batch().entries().size() == 3);
  CHECK(tree.batch().entries()[1].tag == 10);
  CHECK(tree.batch().entries()[2].tag == 12);
  CHECK(tree.length(2) == 4);
  CHECK(tree.first_row(2) == 5);
  CHECK(tree.last_row(root) == 2);
}

TEST_CASE("prefix_tree_batch: a context's tokens have rows, the last of them predicts the answer") {
  prefix_tree_batch tree;
  std::vector const chain{3, 4}, delimiter{5}, answer{6, 7};
  int const root = tree.add(none, std::array{1, 2});
  CHECK(tree.score(root, {chain, delimiter}, answer, 3, 1) == 1);  // after the first position of its parent
  CHECK(tokens(tree.batch()) == std::vector{1, 2, 3, 4, 5, 6});
  CHECK(pairs(tree) == list{{4, 6}, {5, 7}});
  CHECK(tree.length(1) == 5);
  CHECK(tree.last_row(1) + 1 - tree.first_row(1) == 4);
  CHECK(tree.score(none, {chain}, std::array{9}) == 2);  // a sequence of its own
  CHECK(pairs(tree).back() == std::pair{7, 9});
}

TEST_CASE("prefix_tree_batch: roots of equal tokens are one, among neighbours or among all") {
  std::vector const x{1, 2}, y{1, 2, 3};
  for (shared const with : {shared::with_last, shared::with_any}) {
    prefix_tree_batch tree;
    CHECK(tree.root(x, with) == 0);
    CHECK(tree.root(x, with) == 0);
    CHECK(tree.root(y, with) == 1);
    CHECK(tree.root(x, with) == (with == shared::with_any ? 0 : 2));
    CHECK(tree.cache_rows() == (with == shared::with_any ? 5 : 7));
  }
}

TEST_CASE("prefix_tree_batch: an empty cache is given the same sequences, and the first calls are computed") {
  prefix_tree_batch tree(3);
  int const root = tree.root(std::array{1, 2}, shared::with_any);
  int const chain = tree.add(root, std::array{3, 4, 5}, 1);
  int const child = tree.score(chain, {std::array{6, 7}}, std::array{8, 9}, 0, 4);
  int const later = tree.reserve(chain, 2);
  CHECK(pairs(tree) == list{{1, 8}, {2, 9}});
  REQUIRE(tree.cache_rows() == 10);
  reference_backend backend;
  auto cache = cache_of(backend, tree.cache_rows());
  recording_model model;
  int pass = 0;
  tree.open(model, cache, pass);
  CHECK(model.batches == std::vector<std::vector<int>>{{1, 2}, {3, 4, 5}});
  CHECK(tokens(tree.batch()) == std::vector{6, 7, 8});
  CHECK(cache.at(chain).parent == root);
  CHECK(cache.at(chain).inherited == 2);
  CHECK(cache.at(child).parent == chain);
  CHECK(cache.at(child).inherited == 4);
  CHECK(cache.at(child).reserved == 3);
  CHECK(cache.at(later).inherited == 5);
  CHECK(cache.length(later) == 5);
  CHECK_THROWS_WITH(tree.open(model, cache, pass), ATMANRL_CONTAINS("rows"));  // it is full
}

TEST_CASE("prefix_tree_batch: a sequence that is dropped leaves the last call, and the rows after it move up") {
  prefix_tree_batch tree(2);
  int const root = tree.root(std::array{1, 2}, shared::with_any);
  int const a = tree.score(root, {std::array{3}}, std::array{4, 5}, 7);
  int const b = tree.score(root, {std::array{6}}, std::array{8}, 8);
  int const c = tree.score(root, {std::array{9}}, std::array{10, 11}, 9);
  tree.drop(b);
  CHECK(tokens(tree.batch()) == std::vector{3, 4, 9, 10});
  CHECK(pairs(tree) == list{{0, 4}, {1, 5}, {2, 10}, {3, 11}});
  CHECK(tree.first_row(c) == 2);
  CHECK(tree.batch().entries()[1].tag == 9);
  tree.drop(a);
  CHECK(tokens(tree.batch()) == std::vector{9, 10});
  CHECK(pairs(tree) == list{{0, 10}, {1, 11}});
  tree.drop(c);
  CHECK(tree.batch().rows() == 0);
  CHECK(tree.scored().empty());
  CHECK(tree.cache_rows() == 7);
}

TEST_CASE("prefix_tree_batch: what cannot be laid out is refused") {
  prefix_tree_batch tree(2);
  int const root = tree.add(none, std::array{1}, 0);
  CHECK_THROWS_WITH(tree.score(root, {}, {}), ATMANRL_CONTAINS("no token to score"));
  CHECK_THROWS_WITH(tree.score(root, {}, std::array{2}), ATMANRL_CONTAINS("last call"));
  CHECK_THROWS_WITH(tree.score(none, {}, std::array{2}), ATMANRL_CONTAINS("last call"));
  CHECK(tree.scored().empty());
  reference_backend backend;
  auto cache = cache_of(backend, 8);
  cache.add_sequence(2);
  recording_model model;
  int pass = 0;
  CHECK_THROWS_WITH(tree.open(model, cache, pass), ATMANRL_CONTAINS("not empty"));
}

}  // namespace prefix_tree_batch_test
