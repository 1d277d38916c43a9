#include <atmanrl/comm/threads.hpp>
#include <atmanrl/optim/slice_gather.hpp>

#include "catch.hpp"
#include "comm/checks.hpp"

#include <cmath>
#include <vector>

namespace slice_gather_test {

using namespace atmanrl;

namespace {

constexpr std::size_t elements = 203, alignment = 16;

/// Neither slices nor each other: before, across and after the slices' ends, and one that covers several of them.
std::vector<comm::range> const rounded{{0, 5}, {6, 1}, {15, 3}, {40, 110}, {200, 3}};

bool is_rounded(std::size_t i) {
  return std::ranges::any_of(rounded, [&](comm::range const& r) { return i >= r.first && i < r.end(); });
}

/// \param rounding  whether the elements `rounded` are sent as bf16
void check(comm::threads& c, bool rounding) {
  reference_backend backend;
  slice_gather<reference_backend, float> gather(backend, c, elements, alignment);
  comm::range const mine = comm::slice_of(elements, c.size(), c.rank(), alignment);
  auto const exact = comm_checks::leaf_of<float>(3, elements);
  std::vector<float> own(elements, NAN);
  std::copy_n(exact.begin() + std::ptrdiff_t(mine.first), mine.count, own.begin() + std::ptrdiff_t(mine.first));
  auto values = comm_checks::tensor_of(backend, own);
  comm::traffic const before = c.volume();
  if (rounding)
    gather(values.view(), rounded);
  else
    gather(values.view());
  auto const found = values.to_host();
  for (std::size_t i = 0; i < elements; ++i) {
    bool const here = i >= mine.first && i < mine.end();
    float const expected = rounding && !here && is_rounded(i) ? float(bf16(exact[i])) : exact[i];
    comm_checks::expects(found[i] == expected, "rank {} of {} has {} at {}, not {}", c.rank(), c.size(), found[i], i,
                         expected);
  }
  auto const bytes = [&](int rank) {
    comm::range const s = comm::slice_of(elements, c.size(), rank, alignment);
    std::size_t all = 0;
    for (std::size_t i = s.first; i < s.end(); ++i) all += rounding && is_rounded(i) ? 2 : 4;
    return all;
  };
  std::size_t received = 0;
  for (int r = 0; r < c.size(); ++r) received += r == c.rank() ? 0 : bytes(r);
  comm::byte_count const counted = (c.volume() - before).exchange,
                         formula{bytes(c.rank()) * std::size_t(c.size() - 1), received};
  comm_checks::expects(counted == formula, "rank {} of {} exchanged {} and {} bytes, not {} and {}", c.rank(), c.size(),
                       counted.sent, counted.received, formula.sent, formula.received);
  comm_checks::expects(!rounding || gathered_bytes(mine, rounded) == bytes(c.rank()), "a slice of {} bytes, not {}",
                       gathered_bytes(mine, rounded), bytes(c.rank()));
}

}  // namespace

TEST_CASE("slice_gather: all slices on every rank, chosen elements of others as bf16 keeps them, and the bytes of it") {
  for (int const ranks : {1, 2, 3, 4, 20})
    for (bool const rounding : {false, true}) {
      INFO(ranks << " ranks, rounding " << rounding);
      CHECK_NOTHROW(comm::threads::run(ranks, [&](comm::threads& c) { check(c, rounding); }));
    }
}

TEST_CASE("slice_gather: what lies packed beside the array is as large as it says, also in several rounds") {
  static constexpr std::size_t many = (std::size_t(1) << 22) + 70001;  // more than two rounds of two ranks
  std::vector<comm::range> const all{{0, many}}, none{};
  comm::threads::run(2, [&](comm::threads& c) {
    reference_backend backend;
    auto values = tensor<reference_backend, float, 1>::zeros(backend, {index_t(many)});
    comm::range const mine = comm::slice_of(many, 2, c.rank());
    std::fill_n(values.data() + mine.first, mine.count, float(c.rank() + 1));
    std::size_t const before = backend.allocated_bytes();
    slice_gather<reference_backend, float> gather(backend, c, index_t(many));
    for (auto const& rounded : {all, none}) {
      gather(values.view(), rounded);
      std::size_t const taken = backend.allocated_bytes() - before, most = gather.packed_bytes(many, 2);
      comm_checks::expects(2 * taken >= most && taken <= most, "{} bytes where {} were announced", taken, most);
    }
    for (std::size_t i = 0; i < many; ++i) {
      bool const first = i < comm::slice_of(many, 2, 0).end();
      comm_checks::expects(values.data()[i] == (first ? 1 : 2), "{} at {}", values.data()[i], i);
    }
  });
}

}  // namespace slice_gather_test
