// A block that breaks what a block promises, in one way after the other, and the sentence about each.
#include <atmanrl/testing/block.hpp>

#include "catch.hpp"
#include "strangers.hpp"

using namespace atmanrl;

namespace block_test {
namespace {

enum class fault { none, half_a_gradient, forgets_gain, no_gradient_of_input, sees_other_rows, other_bits_again };
fault wrong = fault::none;
int calls = 0;

/// Queries and keys times a gain, which is wrong as `wrong` says.
struct faulty_gain {
  template <Backend B, class T>
  struct saved {
    tensor<B, T, 3> x;
  };
  static index_t saved_numbers(model_config const& c) { return (c.heads + 2 * c.kv_heads) * c.head_dim; }
  static void parameters(model_config const&, index_t, parameter_list& list) {
    list.gain("self_attn.faulty.weight", "attn_faulty.weight", 2);
  }
  template <HostBackend B, class T>
  static void forward(nn::part_call<B, T> const& c, view_on<B, T, 3> qkv, saved<B, T>& s) {
    s.x.resize(c.backend(), qkv.shape());
    std::copy_n(qkv.data(), qkv.size(), s.x.data());
    ++calls;
    for (index_t i = 0; i < qkv.size(); ++i) {
      qkv.data()[i] *= c.gain(0)(i % 2);
      if (wrong == fault::sees_other_rows) qkv.data()[i] += T(0.01) * T(qkv.extent(0));
      if (wrong == fault::other_bits_again) qkv.data()[i] += T(1e-3) * T(calls);
    }
  }
  template <HostBackend B, class T>
  static void backward(nn::part_call<B, T> const& c, view_on<B, T, 3> dqkv, saved<B, T> const& s) {
    auto const g = c.gain_gradient(0);
    for (index_t i = 0; i < dqkv.size(); ++i) {
      if (!g.empty() && wrong != fault::forgets_gain)
        g(i % 2) += dqkv.data()[i] * s.x.data()[i] * T(wrong == fault::half_a_gradient && i % 2 ? 0.5 : 1);
      if (wrong != fault::no_gradient_of_input) dqkv.data()[i] *= c.gain(0)(i % 2);
    }
  }
};

struct faulty_block : llama_block {
  static constexpr std::string_view model_type = "faulty";
  using qk = nn::in_order<faulty_gain, nn::rope>;
  static architecture files() { return {.class_name = "FaultyForCausalLM"}; }
};

std::string complaint(fault f) {
  wrong = f;
  try {
    testing::check_block<faulty_block>();
  } catch (testing::broken_promise const& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("check_block: a stranger's block keeps its promises") { testing::check_block<strangers::offset_block>(); }

TEST_CASE("check_block: each broken promise is found and named") {
  CHECK(complaint(fault::none).empty());
  std::string const gain = "faulty_block: d loss / d model.layers.0.self_attn.faulty.weight[";
  CHECK_THAT(complaint(fault::half_a_gradient), ATMANRL_CONTAINS(gain + "1] is"));
  CHECK_THAT(complaint(fault::forgets_gain), ATMANRL_CONTAINS(gain) && ATMANRL_CONTAINS("is 0 by its backward pass"));
  CHECK_THAT(complaint(fault::no_gradient_of_input), ATMANRL_CONTAINS("d loss / d model.embed_tokens.weight["));
  CHECK_THAT(complaint(fault::sees_other_rows), ATMANRL_CONTAINS("where its sequence is decoded row by row"));
  CHECK_THAT(complaint(fault::other_bits_again),
             ATMANRL_CONTAINS("and") && ATMANRL_CONTAINS("in a pass that keeps everything"));
}

}  // namespace block_test
