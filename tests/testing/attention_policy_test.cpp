// Attention policies that break what a policy promises, and the sentence about each.
#include <atmanrl/testing/attention_policy.hpp>

#include "catch.hpp"
#include "strangers.hpp"

#include <limits>

using namespace atmanrl;

namespace attention_policy_test {
namespace {

/// A policy of one edit and no numbers.
template <class Params>
struct policy_of {
  Params params() const { return {}; }
};
template <class Params>
struct trained_policy_of : policy_of<Params> {
  index_t parameter_count() const { return 4; }
};

/// The derivative written by hand, and wrong.
struct halves {
  template <class T>
  T operator()(T score, score_site) const {
    if constexpr (std::is_same_v<T, dual<float>> || std::is_same_v<T, dual<double>>)
      return {score.value / 2, score.derivative};
    else
      return score / 2;
  }
};

struct changes_more_keys_than_it_says {
  template <class T>
  T operator()(T score, score_site at) const {
    return at.key <= 2 ? score * 2 : score;
  }
  key_range keys(score_site) const { return {0, 2}; }
};

struct hides_everything_from_head_3 {
  template <class T>
  T operator()(T score, score_site at) const {
    return at.head == 3 ? T{-std::numeric_limits<float>::infinity()} : score;
  }
};

struct counts_too_far {
  index_t parameter(score_site at) const { return at.head + 1; }
  template <class T>
  T operator()(T score, T value, score_site) const {
    return score + value;
  }
};

struct shares_in_silence {
  static constexpr bool separate_sequences = true;
  index_t parameter(score_site at) const { return at.head; }
  template <class T>
  T operator()(T score, T value, score_site) const {
    return score + value;
  }
};

struct not_in_order {
  static constexpr bool consecutive_parameters = true;
  key_range keys(score_site) const { return {0, 2}; }
  index_t parameter(score_site at) const { return at.key < 2 ? 1 - at.key : -1; }
  template <class T>
  T operator()(T score, T value, score_site) const {
    return score + value;
  }
};

struct no_number {
  template <class T>
  T operator()(T score, score_site at) const {
    return score * score / float(at.query - at.key);
  }
};

/// Looks at what is no part of the site.
struct counts_calls {
  template <class T>
  T operator()(T score, score_site) const {
    static int calls = 0;
    return score * float(1 + 1e-3 * double(++calls % 7));
  }
};

}  // namespace

TEST_CASE("check_attention_policy: what keeps its promises passes, with parameters and without") {
  testing::check_attention_policy(strangers::capped_recency{});
  testing::check_attention_policy(strangers::distance_factors{.tags = 9, .reach = 3});
  testing::check_attention_policy(attention::none{});
}

TEST_CASE("check_attention_policy: each broken promise is found and named") {
  using testing::check_attention_policy;
  CHECK_THROWS_WITH(check_attention_policy(policy_of<halves>{}),
                    ATMANRL_CONTAINS("halves>: d edit / d score at the score of layer 0, head 0, sequence 0, query 2, "
                                     "key 0 is 1 by dual numbers but 0.5 by the difference quotient"));
  CHECK_THROWS_WITH(check_attention_policy(policy_of<changes_more_keys_than_it_says>{}),
                    ATMANRL_CONTAINS("says that it changes the keys 0 to 1 alone, but the score of") &&
                        ATMANRL_CONTAINS("key 2 becomes -2.6 where it was -1.3"));
  CHECK_THROWS_WITH(check_attention_policy(policy_of<hides_everything_from_head_3>{}),
                    ATMANRL_CONTAINS("hides all keys of query 2 from head 3 of sequence 0"));
  CHECK_THROWS_WITH(check_attention_policy(trained_policy_of<counts_too_far>{}),
                    ATMANRL_CONTAINS("head 3") && ATMANRL_CONTAINS("uses parameter 4 of 4"));
  CHECK_THROWS_WITH(check_attention_policy(trained_policy_of<shares_in_silence>{}),
                    ATMANRL_CONTAINS("says separate_sequences, but parameter 0 is used by"));
  CHECK_THROWS_WITH(check_attention_policy(trained_policy_of<not_in_order>{}),
                    ATMANRL_CONTAINS("says consecutive_parameters") && ATMANRL_CONTAINS("parameter 0 and not 2"));
  CHECK_THROWS_WITH(check_attention_policy(policy_of<no_number>{}), ATMANRL_CONTAINS("becomes inf where it was -1.3"));
  CHECK_THROWS_AS(check_attention_policy(policy_of<counts_calls>{}), testing::broken_promise);
}

}  // namespace attention_policy_test
