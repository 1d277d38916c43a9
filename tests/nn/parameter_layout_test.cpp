#include <atmanrl/nn/blocks.hpp>
#include <atmanrl/nn/parameter_layout.hpp>

#include "catch.hpp"

using namespace atmanrl;

namespace parameter_layout_test {
namespace {

model_config shape(bool tied, bool bias) {
  model_config c;
  c.layers = 3;
  c.hidden = 8;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 6;
  c.ffn = 10;
  c.vocab = 20;
  c.tied_head = tied;
  c.qkv_bias = bias;
  return c;
}

}  // namespace

TEST_CASE("parameter_layout: names and shapes are those of the model's tensors, without gap or overlap") {
  for (bool const tied : {false, true}) {
    for (bool const bias : {false, true}) {
      model_config const c = shape(tied, bias);
      parameter_layout const layout(c, standard_kind(c));
      auto const tensors = model_tensors(c, standard_kind(c));
      REQUIRE(layout.all().size() == tensors.size());
      index_t at = 0;
      for (parameter_info const& p : layout.all()) {
        auto const t =
            std::find_if(tensors.begin(), tensors.end(), [&](tensor_shape const& x) { return x.name == p.name; });
        REQUIRE(t != tensors.end());
        CHECK(p.is_vector() == (t->shape.size() == 1));
        CHECK((p.is_vector() ? std::vector{p.columns} : std::vector{p.rows, p.columns}) == t->shape);
        CHECK(p.offset == at);
        at += p.size();
        CHECK(layout.find(p.name) == &p);
      }
      CHECK(layout.size() == at);
      CHECK((layout.find("lm_head.weight") == nullptr) == tied);
      CHECK((layout.find("model.layers.1.self_attn.q_proj.bias") == nullptr) == !bias);
    }
  }
}

TEST_CASE("parameter_layout: q, k, v and gate, up are one matrix each, the biases one vector") {
  model_config const c = shape(false, true);
  parameter_layout const layout(c, standard_kind(c));
  for (index_t l = 0; l < c.layers; ++l) {
    auto const follows = [&](char const* second, char const* first) {
      auto const at = [&](char const* name) { return layout.find(fmt::format("model.layers.{}.{}", l, name)); };
      CHECK(at(second)->offset == at(first)->offset + at(first)->size());
    };
    follows("self_attn.k_proj.weight", "self_attn.q_proj.weight");
    follows("self_attn.v_proj.weight", "self_attn.k_proj.weight");
    follows("self_attn.k_proj.bias", "self_attn.q_proj.bias");
    follows("self_attn.v_proj.bias", "self_attn.k_proj.bias");
    follows("mlp.up_proj.weight", "mlp.gate_proj.weight");
  }
}

}  // namespace parameter_layout_test
