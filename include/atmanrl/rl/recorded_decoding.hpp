#pragma once

/// \file
/// Decoding on a backend that records work (backend/repeated.hpp): a step is the same calls on the same arrays each
/// time, because the backend itself does what is the host's part elsewhere (ops/advance.hpp). The host takes the tokens
/// of sixteen steps at once, and waits for the backend then alone.
///
/// A rollout that ends keeps its row until the host has seen it, and until half of the rows have ended; then those that
/// go on are laid out anew. Products read all weights whatever the number of rows, so a few rows more cost little.
///
/// A backend that was told to record nothing decodes so, too, each step launched piece by piece: a product's order of
/// additions may depend on its number of rows, and recording should change no bit.

#include <atmanrl/backend/repeated.hpp>
#include <atmanrl/backend/uploaded.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/ops/advance.hpp>
#include <atmanrl/rl/completion.hpp>
#include <atmanrl/rl/drawn_tokens.hpp>

#include <algorithm>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::detail {

/// A model whose steps of decoding can be recorded: its rows can be moved on between two calls.
template <class M>
concept DecodesRecorded = Recordable<M> && RecordingBackend<typename M::backend_type> &&
    HasAdvance<typename M::backend_type, typename M::scalar> && requires(calls_of<M> a, index_t longest) {
  a.model.forward_again(a.cache, a.pass, longest);
};

/// Rollouts after their first token, up to their last one.
template <DecodesRecorded Model>
class recorded_decoding {
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

 public:
  /// Steps of a block: as many positions are lost at most when the last rollout ends early.
  static constexpr int steps_of_block = 16;

  /// Arguments outlive it; `options.temperature` may be 0.
  recorded_decoding(Model& model, kv_cache<B, T>& cache, forward_pass<B, T>& pass, drawing_space<B, T>& drawing,
                    generate_options const& options, sample_form const& form)
      : model_(&model),
        cache_(&cache),
        pass_(&pass),
        drawing_(&drawing),
        options_(&options),
        form_(form),
        space_(model.memory().template borrow<space>()),
        step_(model.backend()) {
    space_->stop_ids.assign(model.backend(), options.stop_ids);
  }

  void run(std::vector<open_rollout> rollouts, growing_completions& out) {
    lay_out(std::move(rollouts), out);
    while (open_ > 0) {
      int const steps = int(std::min<index_t>(steps_of_block, most_left(out)));
      for (int s = 0; s < steps; ++s) do_step(longest(out, s));
      take(steps, out);
      if (open_ == 0 || 2 * open_ <= rows_.size()) compact(out);
    }
  }

 private:
  struct space {
    tensor<B, decoded_row, 1> rows;
    uploaded<B, int> stop_ids;
    drawn_tokens<B, T> noted;  ///< (steps of a block, rows)
  };
  struct row {
    open_rollout rollout;
    bool done = false;
  };

  // Gives each rollout a row.
  void lay_out(std::vector<open_rollout> rollouts, growing_completions& out) {
    B& backend = model_->backend();
    rows_.clear();
    batch_.clear();
    row_of_.clear();
    std::vector<decoded_row> on_backend;
    std::vector<std::uint64_t> shares;
    for (open_rollout const& r : rollouts) {
      auto const& ids = out.of(r).ids;
      random_key const key = out.next_key(r);
      rows_.push_back({r});
      row_of_.push_back(batch_.add(r.sequence, {&ids.back(), 1}));
      on_backend.push_back(
          {.prompt = key.prompt, .rollout = key.rollout, .tokens = int(ids.size()), .limit = int(r.limit)});
      shares.push_back(share_of_2_64(key));
    }
    open_ = rows_.size();
    index_t const n = index_t(open_);
    auto& [rows, stop_ids, noted] = *space_;
    rows.resize(backend, {n});
    rows.assign(on_backend);
    noted.resize(backend, steps_of_block, n);
    noted.fill_zero();
    drawing_->drawn.resize(backend, 1, n);
    drawing_->rows.assign(backend, row_of_);
    drawing_->shares.resize(backend, {n});
    drawing_->shares.assign(shares);
    planned_ = false;
  }

  index_t most_left(growing_completions& out) const {
    index_t most = 0;
    for (row const& r : rows_)
      if (!r.done) most = std::max(most, r.rollout.limit - index_t(out.of(r.rollout).ids.size()));
    return most;
  }
  // Keys that a row sees in step `s` of the block at most, as far as the host knows.
  index_t longest(growing_completions& out, int s) const {
    index_t most = 0;
    for (row const& r : rows_) {
      if (r.done) continue;
      index_t const tokens = std::min(index_t(out.of(r.rollout).ids.size()) + s, r.rollout.limit - 1);
      most = std::max(most, r.rollout.prompt_tokens + tokens);
    }
    return most;
  }

  void do_step(index_t longest) {
    if (!planned_) {
      model_->forward(*cache_, batch_, *pass_);
      draw_and_advance();
      planned_ = true;
      cut_for_ = 0;
      return;
    }
    if (index_t const keys = keys_to_cut(longest); keys != cut_for_) {
      cut_for_ = keys;
      step_.forget();
    }
    step_([&] {
      model_->forward_again(*cache_, *pass_, cut_for_);
      draw_and_advance();
    });
  }

  void draw_and_advance() {
    B& backend = model_->backend();
    auto& [logits, rows, shares, drawn] = *drawing_;
    auto& noted = space_->noted;
    model_->logits(*pass_, row_of_, logits);
    sample_tokens(backend, logits.cview(), rows.cview(), shares.cview(), options_->temperature, form_,
                  drawn.ids_of_rows());
    score_tokens(backend, logits.cview(), rows.cview(), drawn.ids_of_rows(), options_->scored_temperature(),
                 drawn.log_p_of_rows(), drawn.entropy_of_rows());
    advance_rows(backend, decoding_step<T, typename B::memory_space>{.ids = drawn.ids_of_rows(),
                                                                     .log_p = drawn.log_p_of_rows(),
                                                                     .entropy = drawn.entropy_of_rows(),
                                                                     .noted_ids = noted.ids(),
                                                                     .noted_log_p = noted.log_p(),
                                                                     .noted_entropy = noted.entropy(),
                                                                     .stop_ids = space_->stop_ids.cview(),
                                                                     .seed = options_->seed,
                                                                     .random_step = options_->step,
                                                                     .rows = space_->rows.view(),
                                                                     .places = pass_->movable_places(),
                                                                     .shares = shares.view()});
  }

  // The block's tokens, step by step, so that an error names the same one as without blocks.
  void take(int steps, growing_completions& out) {
    auto const got = space_->noted.to_host();
    for (std::size_t s = 0; s < std::size_t(steps); ++s) {
      for (std::size_t i = 0; i < rows_.size(); ++i) {
        if (rows_[i].done) continue;
        std::size_t const at = s * rows_.size() + i;
        if (!out.add(rows_[i].rollout, got.ids[at], double(got.log_p[at]), double(got.entropy[at]))) continue;
        rows_[i].done = true;
        --open_;
      }
    }
    out.report_progress();
  }

  // The cache learns what its sequences hold; of those that ended it takes the rows back.
  void compact(growing_completions& out) {
    std::vector<open_rollout> left;
    for (row const& r : rows_) {
      open_rollout const& o = r.rollout;
      if (r.done) {
        cache_->release(o.sequence);
        continue;
      }
      // The latest token has no row yet.
      index_t const held = o.prompt_tokens + index_t(out.of(o).ids.size()) - 1;
      cache_->extend(o.sequence, held - cache_->length(o.sequence));
      left.push_back(o);
    }
    if (!left.empty()) lay_out(std::move(left), out);
  }

  Model* model_;
  kv_cache<B, T>* cache_;
  forward_pass<B, T>* pass_;
  drawing_space<B, T>* drawing_;
  generate_options const* options_;
  sample_form form_;
  borrowed<space> space_;
  std::vector<row> rows_;
  std::size_t open_ = 0;
  ragged_batch batch_;
  std::vector<int> row_of_;
  bool planned_ = false;  // whether the pass has the rows
  index_t cut_for_ = 0;   // keys that the repeated step is cut for
  repeated<B> step_;
};

}  // namespace atmanrl::inline ATMANRL_ABI::detail
