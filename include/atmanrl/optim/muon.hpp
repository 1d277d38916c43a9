#pragma once

/// \file
/// Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) for the matrices of a model, AdamW for the
/// rest:
///     M ← μ M + G,   O = orthogonal(G + μ M)   (orthogonal(M) without Nesterov's step),
///     W ← W - lr (r O + λ W),   r = 0.2 sqrt(max(rows, columns)).
/// An orthogonal matrix has elements of root mean square 1 / sqrt(max(rows, columns)), so r makes those of a step 0.2,
/// what AdamW's usually are, and one learning rate serves both (Liu et al. 2025, arXiv:2502.16982, eq. 4).

#include <atmanrl/ops/sgd.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/optim/newton_schulz.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::optim {

/// One moment, and a second one of what AdamW updates: vectors, embeddings and the head, which Muon is not made for.
struct muon {
  static constexpr std::string_view name = "muon";

  double momentum = 0.95;  ///< in [0, 1)
  bool nesterov = true;
  double weight_decay = 0;    ///< times the learning rate, of the matrices
  int turns = 5;              ///< of the Newton-Schulz iteration
  double step_size = 0.2;     ///< root mean square of a step's elements, over the learning rate
  adamw rest{.beta2 = 0.95};  ///< for all that is no such matrix

  /// Whether Muon updates this parameter: a matrix, but neither an embedding nor the head.
  static bool orthogonalises(parameter_shape const& p) {
    return p.rows > 1 && p.columns > 1 && p.name.find("embed") == std::string_view::npos &&
           p.name.find("lm_head") == std::string_view::npos;
  }

  template <Backend B, class T>
  class state : public moments<muon, B, T> {
   public:
    /// \throws usage_error for numbers that cannot be used, shape_error for shapes that overlap
    state(muon const& numbers, B& backend, parameter_list const& all)
        : moments<muon, B, T>(numbers.checked(), backend, {{"momentum", all.size}, {"second_moment", rest_size(all)}}),
          orthogonal_(backend),
          size_(all.size) {
      index_t end = 0;
      for (parameter_shape const& p : all.shapes) {
        expects<shape_error>(p.offset >= end && p.offset + p.size() <= all.size,
                             "muon: {} has the elements [{}, {}), after {} of {}", p.name, p.offset,
                             p.offset + p.size(), end, all.size);
        if (!orthogonalises(p)) continue;
        if (p.offset > end) rest_.push_back({end, p.offset - end});
        end = p.offset + p.size();
        matrices_.push_back({{}, p.offset, p.rows, p.columns});
      }
      if (all.size > end) rest_.push_back({end, all.size - end});
    }

    void step(view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient, double learning_rate) {
      expects<shape_error>(parameters.size() == size_ && gradient.size() == size_,
                           "muon: {} parameters and a gradient of {} for a state of {}", parameters.size(),
                           gradient.size(), size_);
      B& backend = this->backend();
      std::uint64_t const number = this->next_step();
      for (parameter_shape const& p : matrices_) {
        step_.resize(backend, {p.rows, p.columns});
        step_.fill_zero();
        view_on<B, T, 1> const step(step_.data(), {p.size()});
        // 0 - (-1) d is the direction d.
        sgd_step(backend, step, gradient.rows(p.offset, p.size()), this->moment(0).rows(p.offset, p.size()),
                 {.learning_rate = -1, .momentum = this->numbers().momentum, .nesterov = this->numbers().nesterov});
        orthogonal_(step_.view(), this->numbers().turns);
        double const size = this->numbers().step_size * std::sqrt(double(std::max(p.rows, p.columns)));
        sgd_step(backend, parameters.rows(p.offset, p.size()), step,
                 {.learning_rate = learning_rate * size, .weight_decay = this->numbers().weight_decay / size});
      }
      index_t at = 0;
      for (element_range const& r : rest_) {
        adamw_step(backend, parameters.rows(r.first, r.count), gradient.rows(r.first, r.count),
                   this->moment(0).rows(r.first, r.count), this->moment(1).rows(at, r.count),
                   this->numbers().rest.with_rate(learning_rate), number);
        at += r.count;
      }
    }
    newton_schulz<B, T> orthogonal_;
    tensor<B, T, 2> step_;
    std::vector<parameter_shape> matrices_;  // without names, which belong to somebody else
    std::vector<element_range> rest_;
    index_t size_;
  };

  /// Elements of everything that is no matrix of Muon's.
  static index_t rest_size(parameter_list const& all) {
    index_t size = all.size;
    for (parameter_shape const& p : all.shapes) size -= orthogonalises(p) ? p.size() : 0;
    return size;
  }

  /// Elements that a state holds, buffers for the largest matrix among them.
  static index_t state_size(parameter_list const& all) {
    index_t buffers = 0;
    for (parameter_shape const& p : all.shapes)
      if (orthogonalises(p)) buffers = std::max(buffers, p.size() + newton_schulz_buffers(p.rows, p.columns));
    return all.size + rest_size(all) + buffers;
  }

  /// \throws usage_error for numbers that cannot be used
  muon const& checked() const {
    expects<usage_error>(momentum >= 0 && momentum < 1, "muon: momentum is {}, but it must be in [0, 1)", momentum);
    expects<usage_error>(weight_decay >= 0 && std::isfinite(weight_decay),
                         "muon: weight decay is {}, but it must not be negative", weight_decay);
    expects<usage_error>(turns >= 1, "muon: {} turns of the iteration, but there must be one", turns);
    expects<usage_error>(step_size > 0 && std::isfinite(step_size), "muon: step size is {}, but it must be above 0",
                         step_size);
    rest.checked();
    return *this;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::optim
