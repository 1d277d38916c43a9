#pragma once
// A language model that answers by a rule over the tokens in front of it, so that it is known what its answers follow.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/tasks/arithmetic.hpp>

#include "tiny_model.hpp"

#include <cmath>
#include <functional>
#include <map>
#include <string>

namespace atmanrl_test {

/// The logits of a token are what the rule gives for all tokens up to and with the row's. Attention edits do nothing.
class scripted_model : public tiny_model<reference_backend, double> {
  using base = tiny_model<reference_backend, double>;
  using cache_type = kv_cache<reference_backend, double>;
  using pass_type = forward_pass<reference_backend, double>;

 public:
  using rule = std::function<std::vector<double>(std::span<int const>)>;

  scripted_model(reference_backend& backend, index_t vocab, int stop, rule r)
      : base(backend, config_of(vocab, stop)), rule_(std::move(r)) {}

  template <class P = attention::none, class V = no_values>
  void forward(cache_type& cache, ragged_batch const& batch, pass_type& pass, forward_options options = {},
               edited<P, V> = {}) {
    pass.plan(cache, batch, options.mode);
    std::vector<int>& tokens = tokens_[&cache];
    tokens.resize(std::size_t(cache.capacity()));
    for (index_t r = 0; r < pass.rows(); ++r) tokens[std::size_t(pass.cache_rows()(r))] = pass.ids()(r);
    seen& s = pass.template state<seen>();
    s.rows.assign(std::size_t(pass.rows()), {});
    auto const& plan = pass.attention();
    for (index_t i = 0; i < plan.sequences.size(); ++i) {
      attention_sequence const& q = plan.sequences(i);
      std::vector<int> all;
      for (int g = 0; g < q.segments; ++g) {
        attention_segment const& segment = plan.segments(q.first_segment + g);
        for (int k = 0; k < segment.length; ++k) all.push_back(tokens[std::size_t(segment.cache_row + k)]);
      }
      for (int r = 0; r < q.rows; ++r)
        s.rows[std::size_t(q.batch_row + r)].assign(all.begin(), all.begin() + q.first_position + r + 1);
    }
    for (auto const& e : batch.entries()) cache.extend(e.sequence, e.rows);
  }

  void log_probs(pass_type& pass, std::span<scored_token const> tokens, double = 1, bool = false) const {
    std::vector<double> out;
    for (scored_token const& t : tokens) {
      auto const z = rule_(pass.template state<seen>().rows[std::size_t(t.row)]);
      double sum = 0;
      for (double const x : z) sum += std::exp(x);
      out.push_back(z[std::size_t(t.target)] - std::log(sum));
    }
    pass.results().log_p.resize(backend(), {index_t(out.size())});
    pass.results().log_p.assign(out);
  }
  void logits(pass_type& pass, std::span<int const> rows, tensor<reference_backend, double, 2>& out) const {
    std::vector<double> all;
    for (int const r : rows) {
      auto const z = rule_(pass.template state<seen>().rows[std::size_t(r)]);
      all.insert(all.end(), z.begin(), z.end());
    }
    out.resize(backend(), {index_t(rows.size()), config().vocab});
    out.assign(all);
  }

 private:
  struct seen {
    std::vector<std::vector<int>> rows;  // all tokens up to each row's
  };
  static model_config config_of(index_t vocab, int stop) {
    model_config c = tiny_config(vocab);
    c.max_positions = 512;
    c.stop_ids = {stop};
    return c;
  }
  rule rule_;
  std::map<void const*, std::vector<int>> tokens_;  // of each row of a cache
};

/// What a reader of the arithmetic task sees.
struct read_text {  // without white space around them
  std::string question, chain;
};

/// A model that answers `answer(question, chain)` and ends there, each token with a logit of 10 above all others.
inline scripted_model reader(reference_backend& backend, byte_bpe const& words,
                             std::function<std::string(read_text const&)> answer) {
  return {backend, words.vocab_size(), words.eos(), [&words, answer](std::span<int const> tokens) {
            std::string const text = words.decode(tokens);
            std::size_t const question = text.find("Question: "), chain = text.find("\nAnswer:"),
                              mark = text.find("\n#### ");
            std::vector<double> z(std::size_t(words.vocab_size()), 0.0);
            if (question == std::string::npos || mark == std::string::npos) return z;
            std::string const said = text.substr(mark + 6);
            std::string const all =
                answer({text.substr(question + 10, chain - question - 10), text.substr(chain + 9, mark - chain - 9)});
            bool const more = all.starts_with(said) && said.size() < all.size();
            int const next = more ? words.encode(std::string(1, all[said.size()])).front() : words.eos();
            z[std::size_t(next)] = 10;
            return z;
          }};
}

}  // namespace atmanrl_test
