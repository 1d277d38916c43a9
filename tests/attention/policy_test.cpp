#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/attention/policy.hpp>
#include <atmanrl/backend/reference_backend.hpp>

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

}  // namespace policy_test
