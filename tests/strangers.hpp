#pragma once
// Policies as somebody outside the library would write them, from the doc comments of the concepts alone: one for every
// slot in the table of docs/extending.md, which a lint check compares with the assertions below. Each is used where the
// library takes such a policy.
#include <atmanrl/attention/policy.hpp>
#include <atmanrl/attention/suppress.hpp>
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/comm/alone.hpp>
#include <atmanrl/comm/communicator.hpp>
#include <atmanrl/comm/device_parts.hpp>
#include <atmanrl/core/random.hpp>
#include <atmanrl/nn/blocks.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/ops/adamw.hpp>
#include <atmanrl/ops/attention.hpp>
#include <atmanrl/ops/elementwise.hpp>
#include <atmanrl/ops/embedding.hpp>
#include <atmanrl/ops/gated.hpp>
#include <atmanrl/ops/lion.hpp>
#include <atmanrl/ops/log_prob.hpp>
#include <atmanrl/ops/matmul.hpp>
#include <atmanrl/ops/mean_attention.hpp>
#include <atmanrl/ops/rms_norm.hpp>
#include <atmanrl/ops/rope.hpp>
#include <atmanrl/ops/sample.hpp>
#include <atmanrl/ops/sgd.hpp>
#include <atmanrl/ops/swiglu.hpp>
#include <atmanrl/optim/optimizer.hpp>
#include <atmanrl/optim/schedule.hpp>
#include <atmanrl/rl/advantages/advantage.hpp>
#include <atmanrl/rl/losses/loss.hpp>
#include <atmanrl/rl/observers/observer.hpp>
#include <atmanrl/rl/rewards/reward.hpp>
#include <atmanrl/rl/samplers/sampler.hpp>
#include <atmanrl/rl/update_edits/update_edit.hpp>
#include <atmanrl/saliency/estimators/single_edit.hpp>
#include <atmanrl/saliency/masks/mask_family.hpp>
#include <atmanrl/saliency/objectives/objective.hpp>
#include <atmanrl/tasks/task.hpp>
#include <atmanrl/text/chat_template.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tiny_model.hpp"

namespace strangers {

/// Rollout reward: short completions.
struct brevity {
  static constexpr std::string_view name = "brevity";
  float target = 4;
  float operator()(atmanrl::rollout const& r) const { return -std::max(0.0f, float(r.ids.size()) - target); }
};

/// Rollout reward: the share of one token.
struct likes_token {
  int id = 0;
  double operator()(atmanrl::rollout const& r) const {
    return double(std::count(r.ids.begin(), r.ids.end(), id)) / double(r.ids.size());
  }
};

/// Group reward: 1 for the shortest of a group.
struct shortest {
  static constexpr std::string_view name = "shortest";
  void operator()(std::span<atmanrl::rollout const> group, std::span<float> out) const {
    auto const best = std::min_element(group.begin(), group.end(),
                                       [](auto const& a, auto const& b) { return a.ids.size() < b.ids.size(); });
    for (std::size_t i = 0; i < group.size(); ++i) out[i] = &group[i] == &*best ? 1.0f : 0.0f;
  }
};

/// Reward with the model at hand, and with state: how many hidden units it has, plus the number of the call.
struct width_and_calls {
  static constexpr std::string_view name = "width_and_calls";
  int calls = 0;
  template <class Model>
  void operator()(atmanrl::step_rollouts& step, Model& model, std::span<float> out) {
    ++calls;
    step.for_each([&](atmanrl::rollout_group const&, atmanrl::rollout const&, std::size_t i) {
      out[i] = float(model.config().hidden + calls);
    });
  }
};

/// Combinator of rewards: a reward, halved for rollouts that were cut off.
template <class R>
struct halved_when_cut {
  static constexpr std::string_view name = "halved_when_cut";
  R reward{};
  template <class Model>
  void operator()(atmanrl::step_rollouts& step, Model& model, std::span<float> out) {
    auto const values = atmanrl::reward_values(reward, step, model);
    step.for_each([&](atmanrl::rollout_group const&, atmanrl::rollout const& r, std::size_t i) {
      out[i] = r.truncated ? values[i] / 2 : values[i];
    });
  }
  template <class F>
  void for_each_part(F&& f) {
    f(reward);
  }
};

/// Advantage: reward minus the mean of the others (Ahmadian et al. 2024, RLOO).
struct leave_one_out {
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    atmanrl::expects<atmanrl::usage_error>(group_size >= 2, "a group of {} has no others", group_size);
    for (std::size_t i = 0; i < rewards.size(); ++i) {
      std::size_t const first = i / group_size * group_size;
      float others = 0;
      for (std::size_t j = first; j < first + group_size; ++j) others += j == i ? 0 : rewards[j];
      out[i] = rewards[i] - others / float(group_size - 1);
    }
  }
};

/// Advantage of tokens: the last token of a completion takes all of its reward, centred over the step.
struct last_token_pays {
  void operator()(atmanrl::reward_table const& rewards, atmanrl::step_rollouts const&,
                  std::span<std::span<float> const> out) const {
    float mean = 0;
    for (float const r : rewards.total) mean += r / float(rewards.total.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::fill(out[i].begin(), out[i].end(), 0.0f);
      out[i].back() = (rewards.total[i] - mean) * float(out[i].size());
    }
  }
};

/// Advantage of a table: the reward's first part alone, centred in its group; the other parts are looked at, not paid.
struct first_part_only {
  void operator()(atmanrl::reward_table const& rewards, std::size_t group_size, std::span<float> out) const {
    auto const& paid = rewards.components.empty() ? rewards.total : rewards.components.front().values;
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::size_t const first = i / group_size * group_size;
      float mean = 0;
      for (std::size_t j = first; j < first + group_size; ++j) mean += paid[j] / float(group_size);
      out[i] = paid[i] - mean;
    }
  }
};

/// Loss: REINFORCE over all tokens of the step, without ratio and clip.
struct reinforce {
  double operator()(atmanrl::loss_rollout const& r, atmanrl::loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    double sum = 0;
    for (std::size_t t = 0; t < r.log_p.size(); ++t) {
      token_loss[t] = -r.advantage[t] * r.log_p[t];
      dlog_p[t] = -r.advantage[t] / float(scope.tokens);
      sum += double(token_loss[t]) / double(scope.tokens);
    }
    return sum;
  }
  bool clipped(atmanrl::loss_rollout const&, std::size_t) const { return false; }
};

/// Sampler: Gumbel-max is not possible with one uniform number, the second-best token is.
struct second_best {
  int operator()(std::span<float const> logits, double, double) const {
    int best = 0, second = 1;
    if (logits[1] > logits[0]) std::swap(best, second);
    for (int i = 2; i < int(logits.size()); ++i) {
      if (logits[std::size_t(i)] > logits[std::size_t(best)])
        second = best, best = i;
      else if (logits[std::size_t(i)] > logits[std::size_t(second)])
        second = i;
    }
    return second;
  }
};

/// Optimizer: the sign of a momentum (signSGD, Bernstein et al. 2018), in plain loops over host memory.
struct sign_momentum {
  double momentum = 0.8;
  template <atmanrl::Backend B, class T>
  struct state : atmanrl::optim::moments<sign_momentum, B, T> {
    state(sign_momentum const& numbers, B& backend, atmanrl::optim::parameter_list const& all)
        : atmanrl::optim::moments<sign_momentum, B, T>(numbers, backend, {{"average", all.size}}) {}
    void step(atmanrl::view_on<B, T, 1> parameters, atmanrl::view_on<B, T const, 1> gradient, double learning_rate) {
      T const keep = T(this->numbers().momentum), rate = T(learning_rate);
      auto const m = this->moment(0);
      for (atmanrl::index_t i = 0; i < m.size(); ++i) {
        m(i) = keep * m(i) + (1 - keep) * gradient(i);
        parameters(i) -= m(i) > 0 ? rate : m(i) < 0 ? -rate : 0;
      }
      this->next_step();
    }
  };
};

/// Learning-rate schedule: the rate is halved every four steps.
struct halving {
  double operator()(std::uint64_t step, std::uint64_t) const { return std::exp2(-double(step / 4)); }
};

/// Attention: a soft cap of the scores (Gemma 2), then a recency bias that falls with the head (ALiBi).
struct capped_recency {
  struct params_type {
    float cap;
    template <class T>
    T operator()(T score, atmanrl::score_site at) const {
      using std::tanh;
      using real = decltype(atmanrl::real_part(T{}));
      return tanh(score / real(cap)) * real(cap) - real(0.1) * real(at.query - at.key) / real(at.head + 1);
    }
  };
  float cap = 2;
  params_type params() const { return {cap}; }
};

/// Trainable attention: a factor for each distance up to `reach`, one set for each tag.
struct distance_factors {
  struct params_type {
    int tags, reach;
    atmanrl::index_t parameter(atmanrl::score_site at) const {
      int const distance = at.query - at.key;
      return at.sequence < tags && distance < reach ? at.sequence * reach + distance : -1;
    }
    template <class T>
    T operator()(T score, T value, atmanrl::score_site) const {
      return score * value + value * value;
    }
  };
  int tags = 1, reach = 3;
  params_type params() const { return {tags, reach}; }
  atmanrl::index_t parameter_count() const { return tags * reach; }
};

/// Update edit: in the loss, completions see faintly what lies `reach` tokens back or more; prompts see all of it.
struct short_sight {
  struct policy {
    struct params_type {
      int reach;
      float loss;
      template <class T>
      T operator()(T score, atmanrl::score_site at) const {
        using real = decltype(atmanrl::real_part(T{}));
        return at.sequence >= 0 && at.query - at.key >= reach ? score - real(loss) : score;
      }
    };
    int reach;
    float loss;
    params_type params() const { return {reach, loss}; }
  };
  int reach = 3;
  float loss = 2;
  template <class B>
  policy operator()(B&, std::span<atmanrl::training_rollout const* const>) const {
    return {reach, loss};
  }
};

/// Mask family: every two neighbouring tokens of a chain share one value, which is added to the scores of both in all
/// layers and heads. Where it lies, what it does and how it is read are its own from the first line to the last.
struct couples {
  static constexpr std::string_view name = "couples";

  template <atmanrl::Backend B>
  class policy {
   public:
    struct params_type {
      atmanrl::mask_extent const* extents;
      int sequences;
      ATMANRL_HOST_DEVICE atmanrl::index_t parameter(atmanrl::score_site at) const {
        if (at.sequence < 0 || at.sequence >= sequences) return -1;
        atmanrl::mask_extent const e = extents[at.sequence];
        bool const inside =
            at.query >= e.first_row && at.query <= e.last_row && at.key >= e.cot_begin && at.key < e.cot_end;
        return inside ? e.offset + (at.key - e.cot_begin) / 2 : -1;
      }
      template <class T>
      ATMANRL_HOST_DEVICE T operator()(T score, T value, atmanrl::score_site) const {
        return score + value;
      }
    };
    void assign(B& backend, std::span<atmanrl::mask_extent const> extents) {
      extents_.resize(backend, {atmanrl::index_t(extents.size())});
      extents_.assign(extents);
      count_ = 0;
      for (auto const& e : extents) count_ += e.count;
    }
    params_type params() const { return {extents_.data(), int(extents_.extent(0))}; }
    atmanrl::index_t parameter_count() const { return count_; }

   private:
    atmanrl::tensor<B, atmanrl::mask_extent, 1> extents_;
    atmanrl::index_t count_ = 0;
  };

  float depth = 4;

  atmanrl::mask_extent lay_out(atmanrl::saliency_item const& item, atmanrl::mask_rows rows,
                               atmanrl::model_config const&, atmanrl::index_t offset) const {
    int const begin = int(item.prompt.size()), end = begin + int(item.cot.size());
    int const total = end + int(item.delimiter.size() + item.answer.size());
    auto e = atmanrl::make_mask_extent(atmanrl::mask_shape::column, rows, begin, end, total, offset);
    e.count = (e.count + 1) / 2;
    return e;
  }
  template <atmanrl::Backend B>
  void assign(policy<B>& to, B& backend, std::span<atmanrl::saliency_item const>,
              std::span<atmanrl::mask_extent const> extents, atmanrl::model_config const&) const {
    to.assign(backend, extents);
  }
  // The first of a chain starts half as deep.
  void initial(atmanrl::mask_extent const&, std::span<double> values) const {
    for (double& v : values) v = double(-depth);
    values[0] /= 2;
  }
  atmanrl::mask_saliency reduce(atmanrl::mask_extent const& e, std::span<float const> values) const {
    atmanrl::mask_saliency out;
    for (int t = 0; t < e.cot_end - e.cot_begin; ++t) {
      float const open = 1 + values[std::size_t(t / 2)] / depth;
      out.token_saliency.push_back(open);
      out.re_enabled += double(open) / double(e.cot_end - e.cot_begin);
    }
    out.as_printed = 1 - out.re_enabled;
    return out;
  }
};

/// Mask objective of log-probabilities: every token of the answer as probable as without a mask, and no more.
struct squared_gap {
  static constexpr std::string_view name = "squared_gap";
  double operator()(atmanrl::answer_log_probs const& a, std::span<double> derivative) const {
    double const n = double(a.masked.size());
    double sum = 0;
    for (std::size_t t = 0; t < a.masked.size(); ++t) {
      double const gap = a.unmasked[t] - a.masked[t];
      sum += gap * gap / n;
      derivative[t] = -2 * gap / n;
    }
    return sum;
  }
};

/// Mask objective of logits: how far the answer's logits stand below the mean of their row.
struct below_mean {
  static constexpr std::string_view name = "below_mean";
  double operator()(atmanrl::answer_logits const& a, std::span<double> derivative) const {
    double sum = 0;
    for (std::size_t t = 0; t < a.answer.size(); ++t) {
      auto const row = a.masked_row(t);
      for (std::size_t j = 0; j < row.size(); ++j) {
        double const slope = 1 / double(a.vocabulary) - (int(j) == a.answer[t] ? 1 : 0);
        sum += slope * row[j];
        derivative[t * a.vocabulary + j] = slope;
      }
    }
    return sum;
  }
};

static_assert(atmanrl::MaskFamily<couples> && !atmanrl::ScaledMask<couples> && !atmanrl::SparseMask<couples>);
static_assert(atmanrl::LogProbObjective<squared_gap> && atmanrl::MaskObjective<squared_gap>);
static_assert(atmanrl::LogitObjective<below_mean> && atmanrl::MaskObjective<below_mean>);
/// Chat template: names in brackets.
struct bracketed_chat {
  atmanrl::chat_text operator()(std::span<atmanrl::chat_message const> messages, bool answer_follows) const {
    atmanrl::chat_text out;
    for (auto const& m : messages) out.control("[" + m.role + "] ").content(m.content).control("<|im_end|>");
    return answer_follows ? out.control("[assistant]") : out;
  }
};

/// Tokenizer: a token per byte, and one that ends a text.
class byte_tokens {
 public:
  static constexpr int end = 256;

  byte_tokens() {
    for (int i = 0; i < end; ++i) bytes_ += char(i);
  }
  atmanrl::index_t vocab_size() const { return end + 1; }
  std::vector<int> encode(std::string_view text) const {
    std::vector<int> ids;
    for (char const c : text) ids.push_back(int(static_cast<unsigned char>(c)));
    return ids;
  }
  std::vector<int> encode_with_specials(std::string_view text) const {
    std::vector<int> ids;
    for (std::size_t at; (at = text.find(end_text)) != std::string_view::npos;
         text.remove_prefix(at + end_text.size())) {
      auto const before = encode(text.substr(0, at));
      ids.insert(ids.end(), before.begin(), before.end());
      ids.push_back(end);
    }
    auto const rest = encode(text);
    ids.insert(ids.end(), rest.begin(), rest.end());
    return ids;
  }
  std::string decode(std::span<int const> ids) const {
    std::string text;
    for (int const id : ids) text += token_bytes(id);
    return text;
  }
  std::string_view token_bytes(int id) const {
    atmanrl::expects<atmanrl::usage_error>(id >= 0, "token {}", id);
    return id < end ? std::string_view(bytes_).substr(std::size_t(id), 1) : id == end ? end_text : std::string_view();
  }
  bool is_special(int id) const { return id == end; }
  int bos() const { return -1; }
  int eos() const { return end; }
  std::optional<int> token_id(std::string_view text) const {
    return text == end_text ? std::optional(end) : std::nullopt;
  }

 private:
  static constexpr std::string_view end_text = "<end>";
  std::string bytes_;
};

/// A part of a block: offsets that are added to queries, keys and values before they are rotated.
struct offsets {
  template <atmanrl::Backend B, class T>
  struct saved {};
  static atmanrl::index_t saved_numbers(atmanrl::model_config const&) { return 0; }
  static void parameters(atmanrl::model_config const& c, atmanrl::index_t, atmanrl::parameter_list& list) {
    list.gain("self_attn.offset_norm.weight", "attn_offset.weight", (c.heads + 2 * c.kv_heads) * c.head_dim);
  }
  template <atmanrl::Backend B, class T>
  static void forward(atmanrl::nn::part_call<B, T> const& c, atmanrl::view_on<B, T, 3> qkv, saved<B, T>&) {
    atmanrl::add_bias<B, T>(c.backend(), c.gain(0), rows_of<B, T>(qkv));
  }
  template <atmanrl::Backend B, class T>
  static void backward(atmanrl::nn::part_call<B, T> const& c, atmanrl::view_on<B, T, 3> dqkv, saved<B, T> const&) {
    if (auto const g = c.gain_gradient(0); !g.empty())
      atmanrl::add_bias_backward<B, T>(c.backend(), rows_of<B, T>(dqkv), g);
  }

 private:
  template <atmanrl::Backend B, class T>
  static atmanrl::view_on<B, T, 2> rows_of(atmanrl::view_on<B, T, 3> x) {
    return x.template reshaped<2>({x.extent(0), x.extent(1) * x.extent(2)});
  }
};

/// An activation: of SwiGLU's matrices gate up / (1 + gate²). Its `forward` hides both of SwiGLU's, that of a product,
/// which would be SwiGLU's function, too.
struct rational_glu : atmanrl::nn::swiglu {
  struct function {
    static constexpr int operations = 4;
    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T gate, T up) const {
      return gate * up / (gate * gate + decltype(atmanrl::real_part(T{}))(1));
    }
  };
  static std::vector<std::string> names() { return {"rational"}; }
  template <atmanrl::Backend B, class T, class Y>
  static void forward(B& backend, atmanrl::view_on<B, T const, 2> gate_up, atmanrl::view_on<B, Y, 2> y) {
    atmanrl::gated(backend, function{}, gate_up, y);
  }
  template <atmanrl::Backend B, class T, class Y>
  static void backward(B& backend, atmanrl::view_on<B, T const, 2> gate_up, atmanrl::view_on<B, T const, 2> dy,
                       atmanrl::view_on<B, Y, 2> dgate_up) {
    atmanrl::gated_backward(backend, function{}, gate_up, dy, dgate_up);
  }
};

/// Block: norms after each half alone, offsets, and an activation of its own, in files of its own kind.
struct offset_block : atmanrl::llama_block {
  static constexpr std::string_view model_type = "offset";
  using qk = atmanrl::nn::in_order<offsets, atmanrl::nn::rope>;
  using activation = rational_glu;
  using residual = atmanrl::nn::post_norm;
  static atmanrl::architecture files() { return {.class_name = "OffsetForCausalLM", .gguf = "offset"}; }
};

/// Saliency estimator: the effect of the half of a token's weight.
struct half_weight {
  static constexpr std::string_view name = "half_weight";
  template <class Model>
  atmanrl::saliency_estimate operator()(Model& model, std::span<atmanrl::saliency_item const> items) {
    return atmanrl::single_edit_effects(model, items, {},
                                        [](auto& backend, std::span<atmanrl::key_selection const> chosen) {
                                          return atmanrl::attention::suppress_log(backend, chosen, 0.5f);
                                        });
  }
};

/// Observer: the longest chain of thought of the step, in tokens.
struct longest_chain {
  void operator()(atmanrl::grpo_step_report& report, auto&, std::vector<atmanrl::observation>& out) {
    std::size_t longest = 0;
    report.rollouts.for_each(
        [&](auto&, atmanrl::rollout& r, std::size_t) { longest = std::max(longest, r.cot().size()); });
    out.push_back({"strangers/longest_chain", double(longest)});
  }
};

/// Task: the digit after the one that is named. 7 and 8 are asked in evaluations alone.
struct next_digit {
  std::string_view name() const { return "next_digit"; }
  std::string_view delimiter() const { return "####"; }
  atmanrl::task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    return after(int(uniform(atmanrl::random_key{.seed = seed, .step = 7, .prompt = std::uint32_t(index)}) * 7));
  }
  atmanrl::index_t evaluation_size() const { return 2; }
  atmanrl::task_item evaluation_item(atmanrl::index_t i) const { return after(7 + int(i)); }
  template <atmanrl::Tokenizer K>
  std::vector<int> prompt(atmanrl::task_item const& item, K const& tokenizer) const {
    std::vector<int> ids = tokenizer.encode(item.question);
    if (tokenizer.bos() >= 0) ids.insert(ids.begin(), tokenizer.bos());
    return ids;
  }
  atmanrl::graded_answer grade(atmanrl::task_item const& item, std::string_view completion) const {
    atmanrl::graded_answer g;
    std::size_t const mark = completion.find(delimiter());
    std::size_t const at = completion.find_first_of("0123456789", mark == std::string_view::npos ? 0 : mark);
    if (at == std::string_view::npos) return g;
    g.extracted_flexible = std::string(1, completion[at]);
    g.correct_flexible = *g.extracted_flexible == item.answer;
    if (mark == std::string_view::npos) return g;
    g.extracted = g.extracted_flexible;
    g.correct_strict = g.correct_flexible;
    return g;
  }
  std::string answer_text(atmanrl::task_item const& item) const { return item.answer; }

 private:
  static atmanrl::task_item after(int digit) {
    std::string const d = std::to_string(digit), next = std::to_string(digit + 1);
    return {.id = "after-" + d, .question = "A " + d, .answer = next, .solution = "w. #### " + next};
  }
};

/// Backend: memory that is full of something when it is handed out. A number that is read before it was written shows
/// as NaN or as other bits than those of plain loops. Its kernels are those of `reference_backend`.
class dirty_backend : public atmanrl::reference_backend {
 public:
  static constexpr std::string_view name = "dirty";
  /// What every byte is: 0xff in all of them is a NaN.
  struct options_type {
    int byte = 0xff;
  };

  dirty_backend() = default;
  explicit dirty_backend(options_type const& options) : options_(options) {}
  options_type const& options() const { return options_; }

  void* allocate(std::size_t bytes) {
    void* const p = atmanrl::reference_backend::allocate(bytes);
    std::memset(p, options_.byte, bytes);
    return p;
  }

 private:
  options_type options_;
};

/// Communicator, and DeviceCommunicator for every backend: another one, whose calls are written down.
template <class C>
class recorded {
 public:
  explicit recorded(C& c) : inner_(c) {}
  int rank() const { return inner_.rank(); }
  int size() const { return inner_.size(); }
  void exchange(std::span<std::byte const> sent, std::span<std::size_t const> sent_bytes, std::span<std::byte> received,
                std::span<std::size_t const> received_bytes) {
    calls += "e";
    inner_.exchange(sent, sent_bytes, received, received_bytes);
  }
  void all_gather(std::span<std::byte const> mine, std::span<std::byte> all, std::span<std::size_t const> bytes) {
    calls += "g";
    inner_.all_gather(mine, all, bytes);
  }
  void barrier() {
    calls += "b";
    inner_.barrier();
  }
  atmanrl::comm::traffic volume() const { return inner_.volume() - sizes_; }
  /// Of any backend, through the host.
  template <class B>
  void exchange_on(B& backend, std::span<std::span<std::byte const> const> sent,
                   std::span<std::span<std::byte> const> received) {
    calls += "d";
    auto const sent_bytes = atmanrl::comm::bytes_of_parts(sent);
    auto const received_bytes = atmanrl::comm::bytes_of_parts(received);
    auto const before = inner_.volume();
    atmanrl::comm::expects_same_parts(inner_, sent_bytes, received_bytes);
    sizes_ = sizes_ + (inner_.volume() - before);
    std::vector<std::byte> out(std::accumulate(sent_bytes.begin(), sent_bytes.end(), std::size_t(0))),
        in(std::accumulate(received_bytes.begin(), received_bytes.end(), std::size_t(0)));
    std::byte* at = out.data();
    for (auto const& part : sent) backend.copy_to_host(std::exchange(at, at + part.size()), part.data(), part.size());
    inner_.exchange(out, sent_bytes, in, received_bytes);
    at = in.data();
    for (auto const& part : received)
      backend.copy_from_host(part.data(), std::exchange(at, at + part.size()), part.size());
  }

  std::string calls;

 private:
  C& inner_;
  atmanrl::comm::traffic sizes_;
};

}  // namespace strangers

namespace atmanrl::kernels {

/// A weight is a type of the backend's own; it lies as in plain loops.
template <>
struct matmul<strangers::dirty_backend> : matmul<reference_backend> {
  using loops = matmul<reference_backend>;
  using dirty = strangers::dirty_backend;
  template <class W>
  static weight_view<reference_backend, W> plain(weight_view<dirty, W> w) {
    return {w.data, w.outputs, w.inputs};
  }
  template <class W, class T>
  static void assign_rows(dirty& b, weight_view<dirty, W> w, index_t first, view<T const, 2> rows) {
    loops::assign_rows(b, plain(w), first, rows);
  }
  template <class W, class T>
  static void read_rows(dirty& b, weight_view<dirty, W> w, index_t first, view<T, 2> rows) {
    loops::read_rows(b, plain(w), first, rows);
  }
  template <class W, class T>
  static void forward(dirty& b, view<T const, 2> x, weight_view<dirty, W> w, view<T, 2> y, bool add) {
    loops::forward(b, x, plain(w), y, add);
  }
  template <class W, class T>
  static void backward_input(dirty& b, view<T const, 2> dy, weight_view<dirty, W> w, view<T, 2> dx, bool add) {
    loops::backward_input(b, dy, plain(w), dx, add);
  }
};
template <>
struct embedding<strangers::dirty_backend> : embedding<reference_backend> {
  using dirty = strangers::dirty_backend;
  template <class W, class T>
  static void forward(dirty& b, view<int const, 1> ids, weight_view<dirty, W> table, view<T, 2> y) {
    embedding<reference_backend>::forward(b, ids, matmul<dirty>::plain(table), y);
  }
};

// clang-format off
template <> struct adamw<strangers::dirty_backend> : adamw<reference_backend> {};
template <> struct attention<strangers::dirty_backend> : attention<reference_backend> {};
template <> struct elementwise<strangers::dirty_backend> : elementwise<reference_backend> {};
template <> struct gated<strangers::dirty_backend> : gated<reference_backend> {};
template <> struct lion<strangers::dirty_backend> : lion<reference_backend> {};
template <> struct log_prob<strangers::dirty_backend> : log_prob<reference_backend> {};
template <> struct mean_attention<strangers::dirty_backend> : mean_attention<reference_backend> {};
template <> struct rms_norm<strangers::dirty_backend> : rms_norm<reference_backend> {};
template <> struct rope<strangers::dirty_backend> : rope<reference_backend> {};
template <> struct sample<strangers::dirty_backend> : sample<reference_backend> {};
template <> struct sgd<strangers::dirty_backend> : sgd<reference_backend> {};
template <> struct swiglu<strangers::dirty_backend> : swiglu<reference_backend> {};
// clang-format on

}  // namespace atmanrl::kernels

namespace strangers {

/// Model: one layer of attention between an embedding and itself (tests/tiny_model.hpp).
template <atmanrl::Backend B, class T>
using one_attention = atmanrl_test::tiny_model<B, T>;

using model_on_dirty = one_attention<dirty_backend, double>;

static_assert(atmanrl::TransformerBlock<offset_block> && !atmanrl::TransformerBlock<offsets>);
static_assert(atmanrl::Tokenizer<byte_tokens> && !atmanrl::Tokenizer<brevity>);
static_assert(atmanrl::ChatTemplate<bracketed_chat> && !atmanrl::ChatTemplate<brevity>);
static_assert(atmanrl::Reward<brevity, model_on_dirty> && atmanrl::Reward<width_and_calls, model_on_dirty>);
static_assert(atmanrl::RolloutReward<brevity> && atmanrl::RolloutReward<likes_token> && atmanrl::GroupReward<shortest>);
static_assert(atmanrl::ModelReward<width_and_calls> && !atmanrl::RolloutReward<width_and_calls>);
static_assert(atmanrl::TokenAdvantage<last_token_pays> && !atmanrl::RolloutAdvantage<last_token_pays>);
static_assert(atmanrl::RewardAdvantage<leave_one_out> && atmanrl::TableAdvantage<first_part_only>);
static_assert(atmanrl::Advantage<leave_one_out> && atmanrl::PolicyLoss<reinforce> && atmanrl::Sampler<second_best>);
static_assert(atmanrl::Optimizer<sign_momentum> && atmanrl::Schedule<halving>);
static_assert(atmanrl::UpdateEdit<short_sight> && !atmanrl::UpdateEdit<capped_recency>);
static_assert(atmanrl::AttentionPolicy<capped_recency> && atmanrl::TrainableAttentionPolicy<distance_factors>);
static_assert(atmanrl::Backend<dirty_backend> && atmanrl::HostBackend<dirty_backend>);
static_assert(atmanrl::LanguageModel<model_on_dirty> && atmanrl::TrainableModel<model_on_dirty>);
static_assert(atmanrl::SaliencyEstimator<half_weight, model_on_dirty> && atmanrl::Task<next_digit>);
static_assert(atmanrl::Observer<longest_chain, model_on_dirty>);
static_assert(atmanrl::Communicator<recorded<atmanrl::comm::alone>> && !atmanrl::Communicator<brevity>);
static_assert(atmanrl::DeviceCommunicator<recorded<atmanrl::comm::alone>, dirty_backend> &&
              !atmanrl::DeviceCommunicator<atmanrl::comm::alone, dirty_backend>);

}  // namespace strangers
