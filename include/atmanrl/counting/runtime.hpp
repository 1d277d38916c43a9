#pragma once

/// \file
/// Memory and counts of the backend that computes nothing: the part of it that its kernels use.
///
/// Its memory is a reserve of addresses (backend/address_space.hpp), so a model of billions of parameters is walked in
/// a second or two and without its memory.

#include <atmanrl/backend/address_space.hpp>
#include <atmanrl/backend/backend.hpp>
#include <atmanrl/backend/memory_ledger.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/counting/work.hpp>

#include <map>
#include <string>

namespace atmanrl::inline ATMANRL_ABI {

/// All calls of one kernel.
struct kernel_count {
  work_kind kind = work_kind::rest;
  double calls = 0;
  work done;
  double floor = 0;         ///< seconds: every call at the machine's limit, one after the other
  double memory_bound = 0;  ///< the part of `floor` in calls that wait for memory rather than for arithmetic
};

class counting_backend {
 public:
  using memory_space = device_space;
  static constexpr std::string_view name = "counting";
  static constexpr bool counts_work = true;

  /// \param skinny_products  whether it counts what cuda_options::skinny_products asks of a GPU: with bf16 weights and
  ///                         up to 16 rows a product has what follows it in its kernel (cuda/skinny_gated.cuh,
  ///                         cuda/skinny_rope.cuh)
  explicit counting_backend(machine_limits limits = {}, bool skinny_products = false)
      : limits_(limits), skinny_products_(skinny_products) {}
  counting_backend(counting_backend const&) = delete;
  counting_backend& operator=(counting_backend const&) = delete;

  void* allocate(std::size_t bytes) {
    void* const p = reserve_addresses(bytes);
    ledger_.add(p, bytes);
    ++allocations_;
    return p;
  }
  void deallocate(void* p, std::size_t bytes) noexcept {
    ledger_.remove(p, bytes);
    release_addresses(p, bytes);
  }
  void copy(void* to, void const* from, std::size_t bytes) {
    reserved_memory::copy(to, from, bytes);
    count("copy", work_kind::rest, 0, 2 * double(bytes));
  }
  void copy_from_host(void* to, void const* from, std::size_t bytes) {
    reserved_memory::copy_from_host(to, from, bytes);
    host_bytes_ += double(bytes);
  }
  void copy_to_host(void* to, void const* from, std::size_t bytes) {
    reserved_memory::copy_to_host(to, from, bytes);
    host_bytes_ += double(bytes);
    ++waits_;
  }
  void fill_zero(void* to, std::size_t bytes) {
    reserved_memory::fill_zero(to, bytes);
    count("fill_zero", work_kind::rest, 0, double(bytes));
  }
  void synchronize() {}
  memory_ledger* ledger() { return &ledger_; }
  std::size_t allocated_bytes() const { return ledger_.now().all(); }
  std::size_t peak_bytes() const { return ledger_.peak().all(); }

  void count(char const* kernel, work_kind kind, double operations, double bytes) {
    kernel_count& k = kernels_[kernel];
    k.kind = kind;
    ++k.calls;
    k.done += work{operations, bytes};
    double const seconds = limits_.floor(kind, {operations, bytes});
    k.floor += seconds;
    if (bytes / limits_.bandwidth >= seconds) k.memory_bound += seconds;
  }

  bool skinny_products() const { return skinny_products_; }

  std::map<std::string, kernel_count> const& kernels() const { return kernels_; }
  double host_bytes() const { return host_bytes_; }  ///< to and from the host
  double waits() const { return waits_; }            ///< copies to the host, each of which waits for the device
  double allocations() const { return allocations_; }

  phase_work total() const {
    phase_work all;
    for (auto const& [name, k] : kernels_) all.of(k.kind) += k.done;
    return all;
  }
  void reset() {
    kernels_.clear();
    host_bytes_ = waits_ = allocations_ = 0;
  }

 private:
  machine_limits limits_;
  bool skinny_products_;
  std::map<std::string, kernel_count> kernels_;
  memory_ledger ledger_;
  double host_bytes_ = 0, waits_ = 0, allocations_ = 0;
};
static_assert(Backend<counting_backend>);

namespace kernels {

namespace counting {
using backend = counting_backend;
using space = backend::memory_space;
template <class T, int Rank>
using on = view<T, Rank, space>;
/// Bytes of everything that a view shows.
template <class V>
double bytes(V const& v) {
  return double(v.size()) * double(sizeof(typename V::value_type));
}
}  // namespace counting

}  // namespace kernels

}  // namespace atmanrl::inline ATMANRL_ABI
