#pragma once

/// \file
/// Work that a machine is asked for, and the time below which a machine of given limits cannot do it (the roofline of
/// Williams, Waterman & Patterson 2009).

#include <algorithm>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// Operations, and bytes that go from and to the machine's memory.
struct work {
  double operations = 0, bytes = 0;

  work& operator+=(work const& o) {
    operations += o.operations;
    bytes += o.bytes;
    return *this;
  }
  friend work operator+(work a, work const& b) { return a += b; }
  friend work operator*(double n, work const& w) { return {n * w.operations, n * w.bytes}; }
};

/// Products with weights, the products that are weights' gradients, attention, and all that goes over an array once.
enum class work_kind { products, weight_gradients, attention, rest };

struct phase_work {
  work products, weight_gradients, attention, rest;

  work& of(work_kind k) {
    switch (k) {
      case work_kind::products:
        return products;
      case work_kind::weight_gradients:
        return weight_gradients;
      case work_kind::attention:
        return attention;
      default:
        return rest;
    }
  }
  work all() const { return products + weight_gradients + attention + rest; }
  friend phase_work operator+(phase_work const& a, phase_work const& b) {
    return {a.products + b.products, a.weight_gradients + b.weight_gradients, a.attention + b.attention,
            a.rest + b.rest};
  }
  friend phase_work operator*(double n, phase_work const& p) {
    return {n * p.products, n * p.weight_gradients, n * p.attention, n * p.rest};
  }
};

/// Printed limits of one GPU; the defaults are those of an H100 SXM.
struct machine_limits {
  double products = 989e12;         ///< operations per second of the matrix units, bf16 factors and float sums, dense
  double weight_gradients = 67e12;  ///< of products of two float matrices; float by default, as cuda_options has it
  double arithmetic = 67e12;        ///< float operations per second of the ordinary units, attention's included
  double bandwidth = 3.35e12;       ///< bytes per second of its memory

  double rate(work_kind k) const {
    return k == work_kind::products ? products : k == work_kind::weight_gradients ? weight_gradients : arithmetic;
  }
  /// Seconds that this work takes at least.
  double floor(work_kind k, work const& w) const { return std::max(w.operations / rate(k), w.bytes / bandwidth); }
};

}  // namespace atmanrl::inline ATMANRL_ABI
