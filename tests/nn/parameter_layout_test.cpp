#include <atmanrl/nn/parameter_layout.hpp>

#include "catch.hpp"

using namespace atmanrl;

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
      parameter_layout const layout(c);
      auto const tensors = model_tensors(c);
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
        CHECK(layout.find(p.kind, p.layer) == &p);
      }
      CHECK(layout.size() == at);
      CHECK((layout.find(parameter_kind::head) == nullptr) == tied);
      CHECK((layout.find(parameter_kind::q_bias, 1) == nullptr) == !bias);
    }
  }
}

TEST_CASE("parameter_layout: q, k, v and gate, up are one matrix each, the biases one vector") {
  model_config const c = shape(false, true);
  parameter_layout const layout(c);
  using enum parameter_kind;
  for (index_t l = 0; l < c.layers; ++l) {
    CHECK(layout.find(k, l)->offset == layout.find(q, l)->offset + layout.find(q, l)->size());
    CHECK(layout.find(v, l)->offset == layout.find(k, l)->offset + layout.find(k, l)->size());
    CHECK(layout.find(k_bias, l)->offset == layout.find(q_bias, l)->offset + layout.find(q_bias, l)->size());
    CHECK(layout.find(v_bias, l)->offset == layout.find(k_bias, l)->offset + layout.find(k_bias, l)->size());
    CHECK(layout.find(up, l)->offset == layout.find(gate, l)->offset + layout.find(gate, l)->size());
  }
  std::vector<float> flat(std::size_t(layout.size()));
  auto const qkv = layout.matrix(view<float, 1>(std::span(flat)), q, 1, (4 + 2 * 2) * 6);
  CHECK(qkv.data() == flat.data() + layout.find(q, 1)->offset);
  CHECK(qkv.shape() == std::array<index_t, 2>{48, 8});
  CHECK(layout.matrix(view<float, 1>{}, q, 1, 48).empty());
}
