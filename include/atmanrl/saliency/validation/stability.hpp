#pragma once

/// \file
/// Two saliencies of the same tokens compared: more steps against fewer, one model against another trained with another
/// seed, trained against random weights (Adebayo et al. 2018, arXiv:1810.03292). Mask training itself draws no random
/// numbers: the same weights give the same masks.

#include <atmanrl/core/random.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/saliency/validation/rank_statistics.hpp>

#include <cmath>
#include <optional>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

struct rank_agreement {
  std::optional<double> spearman;  ///< mean over items where it is defined
  double top_k_jaccard = 0;        ///< mean over items; the top k are a tenth of the tokens, at least one
  int items = 0;
};

/// \param a, b  one list of token values per item
inline rank_agreement agreement(std::span<std::vector<float> const> a, std::span<std::vector<float> const> b,
                                double top_share = 0.1) {
  expects<shape_error>(a.size() == b.size(), "saliencies of {} and {} items", a.size(), b.size());
  rank_agreement out;
  std::vector<std::optional<double>> rho;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].empty()) continue;
    rho.push_back(spearman(a[i], b[i]));
    out.top_k_jaccard +=
        top_k_jaccard(a[i], b[i], std::max<std::size_t>(1, std::size_t(std::lround(top_share * double(a[i].size())))));
    ++out.items;
  }
  out.spearman = mean_of_known(rho);
  if (out.items > 0) out.top_k_jaccard /= out.items;
  return out;
}

/// A model of the same shape with random weights: matrices normal with the given deviation, gains 1, biases 0.
template <TrainableModel Model>
requires std::constructible_from<Model, typename Model::backend_type&, model_config const&> Model
with_random_weights(Model& model, std::uint64_t seed, double deviation = 0.02) {
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  Model out(model.backend(), model.config());
  parameter_layout const& layout = out.trainable_layout();
  std::vector<T> flat(std::size_t(layout.size()), T(0));
  random_stream draw(seed, 0x3A4D03u);
  for (parameter_info const& p : layout.all()) {
    bool const gain = p.role == parameter_role::gain;
    for (index_t i = p.offset; i < p.offset + p.rows * p.columns; ++i) {
      if (gain)
        flat[std::size_t(i)] = T(1);
      else if (!p.is_vector())
        flat[std::size_t(i)] = T(deviation * draw.normal());
    }
  }
  tensor<B, T, 1> on_backend(model.backend(), {index_t(flat.size())});
  on_backend.assign(flat);
  out.assign_trainable(on_backend.cview());
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
