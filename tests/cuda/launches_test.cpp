// How many operations the library queues on a device, layer by layer: launches of kernels, products of cuBLAS, copies.
#include "catch.hpp"
#include "cuda/small_device_model.hpp"
#include "saliency/items.hpp"

using namespace atmanrl_test;

#if defined(ATMANRL_CUDA_EMULATION)  // which counts calls
namespace {

struct queued {
  std::uint64_t kernels = 0, products = 0, fills = 0, copies = 0;

  static queued so_far() {
    auto& of = cuda_emulation::calls().by_name;
    return {of["cudaLaunchKernelEx"], of["cublasGemmStridedBatchedEx"], of["cudaMemsetAsync"], of["cudaMemcpyAsync"]};
  }
  friend queued operator-(queued const& a, queued const& b) {
    return {a.kernels - b.kernels, a.products - b.products, a.fills - b.fills, a.copies - b.copies};
  }
  friend bool operator==(queued const&, queued const&) = default;
  friend std::ostream& operator<<(std::ostream& to, queued const& q) {
    return to << q.kernels << " kernels, " << q.products << " products, " << q.fills << " fills, " << q.copies
              << " copies";
  }
};

/// What one more layer adds to what `run(model)` says it queued.
template <class W, class Run>
queued queued_by_a_layer(Run const& run) {
  queued of[2];
  for (index_t const layers : {2, 3}) {
    model_config c = device_config();
    c.layers = layers;
    c.head_dim = 16;
    c.max_positions = 512;
    cuda_backend device;
    auto model = random_model<cuda_backend, W>(device, c);
    of[layers - 2] = run(model);
  }
  return of[1] - of[0];
}

/// One row of each of two rollouts of a long prompt.
struct decoded_rows {
  queued operator()(auto& model) const {
    auto const space = model.borrow_pass(400);
    ragged_batch prompt, rows;
    int const root = space->cache.add_sequence(300);
    prompt.add(root, random_tokens(300, 37, 1));
    model.forward(space->cache, prompt, space->pass);
    for (unsigned i = 0; i < 2; ++i) rows.add(space->cache.add_child(root, 300, 2), random_tokens(1, 37, 2 + i));
    queued const before = queued::so_far();
    model.forward(space->cache, rows, space->pass);
    return queued::so_far() - before;
  }
};

/// A forward or a backward pass of a step of mask training.
struct mask_step {
  bool backward;

  queued operator()(auto& model) const {
    std::vector<owned_item> items;
    for (unsigned i = 0; i < 2; ++i) items.push_back(make_item(1, 12, 9, 2, 3, i, 37));
    auto const views = views_of(items);
    mask_options o;
    o.rows = mask_rows::all_later;
    mask_batch<std::remove_reference_t<decltype(model)>> batch(model, std::span<saliency_item const>(views), o);
    batch.start();
    queued const first = queued::so_far();
    batch.forward();
    queued const second = queued::so_far();
    if (!backward) return second - first;
    batch.backward();
    return queued::so_far() - second;
  }
};

}  // namespace

TEST_CASE("cuda launches: a layer of decoding is six kernels and four products, and copies nothing") {
  queued const expected{.kernels = 6,
                        .products = 4};  // two norms, rotation into the cache, attention, merge, activation
  CHECK(queued_by_a_layer<bf16>(decoded_rows{}) == expected);
  CHECK(queued_by_a_layer<float>(decoded_rows{}) == expected);
}

TEST_CASE("cuda launches: a layer of a mask step is five kernels upwards and six downwards, with four products each") {
  // Two norms, rotation into the cache, attention, the activation.
  CHECK(queued_by_a_layer<bf16>(mask_step{false}) == queued{.kernels = 5, .products = 4});
  // The activation, two norms, attention by queries and by keys, the rotation back.
  CHECK(queued_by_a_layer<bf16>(mask_step{true}) == queued{.kernels = 6, .products = 4});
}
#endif
