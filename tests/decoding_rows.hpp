#pragma once
// Rows of a decoding step on any backend, and what a step leaves of them.
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/ops/advance.hpp>

#include "catch.hpp"

#include <vector>

namespace atmanrl_test {
using namespace atmanrl;

/// `rows` sequences, each with a segment of somebody else's keys in front of its own, in another order than their rows.
/// Row r has 5 + r keys and up to `limit` + r % 3 tokens, the first of which it has.
template <Backend B>
class decoding_rows {
 public:
  decoding_rows(B& backend, int rows, int steps, std::vector<int> const& stop_ids, int limit) : backend_(&backend) {
    std::vector<attention_sequence> sequences;
    std::vector<attention_segment> segments;
    for (int i = 0; i < rows; ++i) {
      int const r = (i + 1) % rows, before = 4 + r;
      sequences.push_back({.batch_row = r,
                           .rows = 1,
                           .first_position = before,
                           .first_segment = int(segments.size()),
                           .segments = 2,
                           .tag = 0});
      segments.push_back({0, 0, before, -1});
      segments.push_back({100 + 20 * r, before, 1, r});
    }
    std::vector<int> ids, positions, cache_rows;
    std::vector<decoded_row> state;
    for (int r = 0; r < rows; ++r) {
      ids.push_back(r % 7);
      positions.push_back(4 + r);
      cache_rows.push_back(100 + 20 * r);
      state.push_back({.prompt = std::uint32_t(10 + r),
                       .rollout = std::uint32_t(r % 4),
                       .tokens = 1,
                       .limit = limit + r % 3,
                       .step = 0,
                       .done = 0});
    }
    put(sequences_, sequences);
    put(segments_, segments);
    put(ids_, ids);
    put(positions_, positions);
    put(cache_rows_, cache_rows);
    put(rows_, state);
    put(stop_ids_, stop_ids);
    put(shares_, std::vector<std::uint64_t>(std::size_t(rows), 1));
    noted_ids_ = tensor<B, int, 2>::zeros(backend, {steps, rows});
    noted_log_p_ = tensor<B, float, 2>::zeros(backend, {steps, rows});
    noted_entropy_ = tensor<B, float, 2>::zeros(backend, {steps, rows});
  }

  void step(std::vector<int> const& ids, std::vector<float> const& log_p, std::vector<float> const& entropy) {
    put(drawn_ids_, ids);
    put(log_p_, log_p);
    put(entropy_, entropy);
    advance_rows(*backend_, decoding_step<float, typename B::memory_space>{
                                .ids = drawn_ids_.cview(),
                                .log_p = log_p_.cview(),
                                .entropy = entropy_.cview(),
                                .noted_ids = noted_ids_.view(),
                                .noted_log_p = noted_log_p_.view(),
                                .noted_entropy = noted_entropy_.view(),
                                .stop_ids = stop_ids_.cview(),
                                .seed = 7,
                                .random_step = 3,
                                .rows = rows_.view(),
                                .places = {ids_.view(), positions_.view(), cache_rows_.view(), sequences_.view(),
                                           segments_.view()},
                                .shares = shares_.view()});
  }

  std::vector<int> ids() const { return ids_.to_host(); }
  std::vector<int> positions() const { return positions_.to_host(); }
  std::vector<int> cache_rows() const { return cache_rows_.to_host(); }
  std::vector<decoded_row> rows() const { return rows_.to_host(); }
  std::vector<attention_sequence> sequences() const { return sequences_.to_host(); }
  std::vector<attention_segment> segments() const { return segments_.to_host(); }
  std::vector<std::uint64_t> shares() const { return shares_.to_host(); }
  std::vector<int> noted_ids() const { return noted_ids_.to_host(); }
  std::vector<float> noted_log_p() const { return noted_log_p_.to_host(); }
  std::vector<float> noted_entropy() const { return noted_entropy_.to_host(); }

  /// All of it as whole numbers, to compare.
  std::vector<std::int64_t> state() const {
    std::vector<std::int64_t> all;
    auto const add = [&](auto const& values) { all.insert(all.end(), values.begin(), values.end()); };
    add(ids());
    add(positions());
    add(cache_rows());
    for (auto const& r : rows()) add(std::vector<std::int64_t>{r.prompt, r.rollout, r.tokens, r.limit, r.step, r.done});
    for (auto const& s : sequences())
      add(std::vector<int>{s.batch_row, s.rows, s.first_position, s.first_segment, s.segments, s.tag});
    for (auto const& s : segments()) add(std::vector<int>{s.cache_row, s.first_position, s.length, s.batch_row});
    add(shares());
    add(noted_ids());
    for (float const x : noted_log_p()) all.push_back(std::int64_t(x * 1024));
    for (float const x : noted_entropy()) all.push_back(std::int64_t(x * 1024));
    return all;
  }

 private:
  template <class T>
  void put(tensor<B, T, 1>& to, std::vector<T> const& values) {
    to.resize(*backend_, {index_t(values.size())});
    to.assign(values);
  }

  B* backend_;
  tensor<B, attention_sequence, 1> sequences_;
  tensor<B, attention_segment, 1> segments_;
  tensor<B, int, 1> ids_, positions_, cache_rows_, stop_ids_, drawn_ids_;
  tensor<B, decoded_row, 1> rows_;
  tensor<B, std::uint64_t, 1> shares_;
  tensor<B, float, 1> log_p_, entropy_;
  tensor<B, int, 2> noted_ids_;
  tensor<B, float, 2> noted_log_p_, noted_entropy_;
};

}  // namespace atmanrl_test
