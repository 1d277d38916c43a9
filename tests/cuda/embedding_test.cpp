#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

template <class W, class B, class T>
results embedding_of(B& backend, T, std::vector<int> const& rows, index_t dim) {
  inputs<B, T> const in(backend);
  auto const count = index_t(rows.size());
  auto const ids = in.ids(rows);
  // The weights are those of W for every scalar: rounded where the weight is made.
  weight<B, W> table(backend, 40, dim);
  tensor<B, compute_t<W>, 2> contents = inputs<B, compute_t<W>>(backend).random({40, dim}, 1);
  table.assign_rows(backend, 0, contents.cview());
  auto const x = in.random({40, dim}, 2), dy = in.random({count, dim}, 3);
  auto y = in.empty({count, dim}), gathered = in.empty({count, dim}), dx = in.random({40, dim}, 4);
  embed(backend, ids.cview(), table.view(), y.view());
  gather_rows(backend, x.cview(), ids.cview(), gathered.view());
  add_rows(backend, dy.cview(), ids.cview(), dx.view());
  return {host(y), host(gathered), host(dx)};
}

std::vector<int> some_rows(int count, int different) {
  std::vector<int> rows;
  for (int i = 0; i < count; ++i) rows.push_back(i * i * 7 % different);
  return rows;
}

}  // namespace

TEST_CASE("cuda embedding: look-up, gathering and scattering agree with the plain loop") {
  cuda_backend device;
  for (index_t const dim : ragged_lengths) {
    check_on_device<float>(device, [&](auto& b, auto t) { return embedding_of<float>(b, t, some_rows(9, 7), dim); });
    check_on_device<float>(device, [&](auto& b, auto t) { return embedding_of<bf16>(b, t, some_rows(9, 7), dim); });
  }
  check_on_device<double>(device, [&](auto& b, auto t) { return embedding_of<double>(b, t, some_rows(9, 7), 6); });
  check_on_device<float>(device, [&](auto& b, auto t) { return embedding_of<bf16>(b, t, some_rows(3, 3), 1028); });
}

TEST_CASE(
    "cuda embedding: rows that are added to the same place are added in ascending order, to the bits of the plain "
    "loop") {
  cuda_backend device;
  reference_backend plain;
  for (int const count : {127, 128, 129, 300})  // on both sides of what a block looks at in one go
    for (int const different : {1, 3, 40}) {
      auto const rows = some_rows(count, different);
      CHECK(embedding_of<float>(device, float{}, rows, 4)[2] == embedding_of<float>(plain, float{}, rows, 4)[2]);
      CHECK(same_in_every_thread_order([&] { return embedding_of<float>(device, float{}, rows, 4)[2]; }));
    }
}

TEST_CASE("cuda embedding: no rows are no work") {
  cuda_backend device;
  check_on_device<float>(device, [&](auto& b, auto t) { return embedding_of<float>(b, t, {}, 4); });
}
