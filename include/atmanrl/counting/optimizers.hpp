#pragma once

/// \file
/// Operations and bytes of the optimizers' steps.

#include <atmanrl/counting/runtime.hpp>
#include <atmanrl/ops/adamw.hpp>
#include <atmanrl/ops/lion.hpp>
#include <atmanrl/ops/sgd.hpp>

#include <span>

namespace atmanrl::inline ATMANRL_ABI::kernels {

template <>
struct adamw<counting::backend> {
  template <class T>
  static void step(counting::backend& b, counting::on<T, 1> p, counting::on<T const, 1> g, counting::on<T, 1> m,
                   counting::on<T, 1> v, adamw_coefficients) {
    b.count("adamw", work_kind::rest, 14.0 * double(p.size()),
            2 * counting::bytes(p) + counting::bytes(g) + 2 * counting::bytes(m) + 2 * counting::bytes(v));
  }
  template <class T>
  static void step_and_store(counting::backend& b, counting::on<T, 1> p, counting::on<T const, 1> g,
                             counting::on<T, 1> m, counting::on<T, 1> v, T, std::span<stored_range<T> const> ranges,
                             adamw_coefficients) {
    double stored = 0;
    for (stored_range<T> const& r : ranges) stored += double(r.count) * double(r.rounded ? sizeof(bf16) : sizeof(T));
    b.count("adamw_and_store", work_kind::rest, 15.0 * double(p.size()),
            2 * counting::bytes(p) + counting::bytes(g) + 2 * counting::bytes(m) + 2 * counting::bytes(v) + stored);
  }
};

template <>
struct lion<counting::backend> {
  template <class T>
  static void step(counting::backend& b, counting::on<T, 1> p, counting::on<T const, 1> g, counting::on<T, 1> m,
                   lion_options const&) {
    b.count("lion", work_kind::rest, 12.0 * double(p.size()),
            2 * counting::bytes(p) + counting::bytes(g) + 2 * counting::bytes(m));
  }
};

template <>
struct sgd<counting::backend> {
  template <class T>
  static void step(counting::backend& b, counting::on<T, 1> p, counting::on<T const, 1> g, sgd_options const&) {
    b.count("sgd", work_kind::rest, 4.0 * double(p.size()), 2 * counting::bytes(p) + counting::bytes(g));
  }
  template <class T>
  static void momentum_step(counting::backend& b, counting::on<T, 1> p, counting::on<T const, 1> g,
                            counting::on<T, 1> m, sgd_options const& o) {
    b.count("sgd", work_kind::rest, (o.nesterov ? 8.0 : 6.0) * double(p.size()),
            2 * counting::bytes(p) + counting::bytes(g) + 2 * counting::bytes(m));
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::kernels
