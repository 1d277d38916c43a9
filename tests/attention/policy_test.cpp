#include <atmanrl/attention/compose.hpp>
#include <atmanrl/attention/knockout.hpp>
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/attention/multiplicative_gate.hpp>
#include <atmanrl/attention/policy.hpp>
#include <atmanrl/attention/sigmoid_gate.hpp>
#include <atmanrl/attention/sliding_window.hpp>
#include <atmanrl/attention/soft_cap.hpp>
#include <atmanrl/attention/suppress.hpp>
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/testing/attention_policy.hpp>

#include "catch.hpp"

#include <string>

using namespace atmanrl;

namespace policy_test {
namespace {

struct one_line {
  struct params_type {
    template <class T>
    T operator()(T score, score_site at) const {
      return at.key == 0 ? score : score * 0.5f;
    }
  };
  params_type params() const { return {}; }
};

struct float_only {
  struct params_type {
    float operator()(float score, score_site) const { return score; }
  };
  params_type params() const { return {}; }
};

struct with_row_min {
  struct params_type {
    static constexpr bool needs_row_min = true;
    template <class T>
    T operator()(T score, score_site, T row_min) const {
      return score - row_min;
    }
  };
  params_type params() const { return {}; }
};

struct not_trivial {
  struct params_type {
    std::string name;
    template <class T>
    T operator()(T score, score_site) const {
      return score;
    }
  };
  params_type params() const { return {}; }
};

// Names parameters, but takes no value: they would be ignored in silence.
struct half_trainable {
  struct params_type {
    index_t parameter(score_site at) const { return at.head; }
    template <class T>
    T operator()(T score, score_site) const {
      return score;
    }
  };
  params_type params() const { return {}; }
};
struct half_trainable_with_count : half_trainable {
  index_t parameter_count() const { return 4; }
};

}  // namespace

TEST_CASE("attention policy: the concepts accept and refuse what the documentation says") {
  CHECK(AttentionPolicy<attention::none>);
  CHECK(AttentionPolicy<one_line>);
  CHECK(AttentionPolicy<with_row_min>);
  CHECK(AttentionPolicy<attention::learned_mask<reference_backend>>);
  CHECK(TrainableAttentionPolicy<attention::learned_mask<reference_backend>>);
  CHECK_FALSE(TrainableAttentionPolicy<one_line>);
  CHECK_FALSE(TrainableAttentionPolicy<attention::none>);
  CHECK_FALSE(AttentionPolicy<float_only>);
  CHECK_FALSE(AttentionPolicy<not_trivial>);
  CHECK_FALSE(AttentionPolicy<half_trainable>);
  CHECK_FALSE(AttentionPolicy<half_trainable_with_count>);
  CHECK_FALSE(AttentionPolicy<int>);
  static_assert(detail::explain_attention_policy<one_line>());
  static_assert(detail::explain_attention_policy<attention::learned_mask<reference_backend>>());
}

TEST_CASE("attention policy: none names no keys, so that kernels skip it") {
  key_range const keys = attention::none{}.params().keys({0, 0, 0, 9, 3});
  CHECK(keys.first == keys.last);
  CHECK(attention::none{}.params()(2.5f, {}) == 2.5f);
}

TEST_CASE("attention policy: the built-in ones keep what a policy promises") {
  using testing::check_attention_policy;
  reference_backend backend;
  attention::sliding_window window;
  window.limit(1, 3);
  check_attention_policy(attention::soft_cap{0.7f});
  check_attention_policy(window, {}, {.layers = 2});
  check_attention_policy(attention::compose<attention::soft_cap, attention::sliding_window>{{0.7f}, window}, {},
                         {.layers = 2});
  std::vector<key_selection> const chosen{select_keys(1, 4)};
  check_attention_policy(attention::knockout<reference_backend>(backend, chosen));
  check_attention_policy(attention::suppress<reference_backend>(backend, chosen, 0.25f));
  check_attention_policy(attention::suppress_log<reference_backend>(backend, chosen, 0.25f));
  // Two rollouts of 4 and 3 CoT tokens under one prompt of 3, and a sequence without a mask.
  testing::attention_check const rollouts{.tree = {{-1, 0, 3, -1}, {0, 0, 8, 0}, {0, 0, 7, 1}, {-1, 0, 4, 2}}};
  for (mask_shape const shape : {mask_shape::pair, mask_shape::column})
    for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
      mask_extent const first = make_mask_extent(shape, rows, 3, 7, 11, 0);
      std::vector<mask_extent> const masks{first, make_mask_extent(shape, rows, 3, 6, 10, first.count)};
      check_attention_policy(attention::learned_mask<reference_backend>(backend, shape, masks, 3.0f), {}, rollouts);
      attention::multiplicative_gate<reference_backend> gate;
      gate.assign(backend, shape, masks, {});
      check_attention_policy(gate, {}, rollouts);
      attention::sigmoid_gate<reference_backend> sigmoid;
      sigmoid.assign(backend, shape, masks, {}, 3.0f);
      check_attention_policy(sigmoid, {}, rollouts);
    }
}

}  // namespace policy_test
