// Greedy decoding in batches against the largest logits of whole sequences, one plain pass for each token.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/saliency/validation/greedy_decoding.hpp>

#include "catch.hpp"
#include "saliency/items.hpp"

using namespace atmanrl_test;

namespace greedy_decoding_test {
namespace {

using model_type = llama<reference_backend, double>;

int next_token(model_type& model, std::vector<int> const& ids) {
  kv_cache<reference_backend, double> cache(model.backend(), model.config(), index_t(ids.size()));
  forward_pass<reference_backend, double> pass(model.backend());
  ragged_batch batch;
  batch.add(cache.add_sequence(index_t(ids.size())), ids, 0);
  model.forward(cache, batch, pass);
  tensor<reference_backend, double, 2> logits;
  model.logits(pass, std::array{int(ids.size()) - 1}, logits);
  auto const row = logits.to_host();
  return int(std::max_element(row.begin(), row.end()) - row.begin());
}

}  // namespace

TEST_CASE("decoding in batches gives what one pass for each token gives") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  std::vector<owned_item> const items = ragged_items(11);
  std::vector<decoding_prefix> prefixes;
  for (index_t most : {5, 1, 3})
    for (owned_item const& i : items) prefixes.push_back({i.prompt, i.cot, most});
  auto const never = [](std::size_t, std::span<int const>) { return false; };
  row_count rows;
  auto const together = decode_greedily(model, std::span<decoding_prefix const>(prefixes), never, 16384, &rows);
  REQUIRE(together.size() == prefixes.size());
  index_t computed = 0;
  std::vector<std::vector<int>> prompts;
  for (std::size_t i = 0; i < prefixes.size(); ++i) {
    std::vector<int> ids(prefixes[i].prompt.begin(), prefixes[i].prompt.end());
    if (std::find(prompts.begin(), prompts.end(), ids) == prompts.end()) {
      prompts.push_back(ids);
      computed += index_t(ids.size());
    }
    computed += index_t(prefixes[i].behind.size()) + prefixes[i].most - 1;
    ids.insert(ids.end(), prefixes[i].behind.begin(), prefixes[i].behind.end());
    std::vector<int> expected;
    while (index_t(expected.size()) < prefixes[i].most) {
      expected.push_back(next_token(model, ids));
      ids.push_back(expected.back());
    }
    CHECK(together[i] == expected);
  }
  CHECK(rows.forward == computed);
  CHECK(decode_greedily(model, std::span<decoding_prefix const>(prefixes), never, 1) == together);
}

TEST_CASE("decoding ends where the caller says, for each prefix on its own") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  std::vector<owned_item> const items = ragged_items(11);
  std::vector<decoding_prefix> prefixes;
  for (owned_item const& i : items) prefixes.push_back({i.prompt, i.cot, 6});
  auto const out = decode_greedily(model, std::span<decoding_prefix const>(prefixes),
                                   [](std::size_t prefix, std::span<int const> ids) { return ids.size() > prefix; });
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i].size() == std::min<std::size_t>(i + 1, 6));
  prefixes[1].behind = {};
  auto const never = [](std::size_t, std::span<int const>) { return false; };
  CHECK_THROWS_AS(decode_greedily(model, std::span<decoding_prefix const>(prefixes), never), usage_error);
}

}  // namespace greedy_decoding_test
