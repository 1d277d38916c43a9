#pragma once
// What holds for every communicator, whatever carries its bytes: calls of all ranks, which throw a sentence where it
// does not hold. Catch2 2 is not made for assertions of several threads, and an MPI program has no Catch2 at all.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/comm/agreement.hpp>
#include <atmanrl/comm/shares.hpp>
#include <atmanrl/comm/typed.hpp>
#include <atmanrl/optim/dealt_sum.hpp>
#include <atmanrl/optim/gradient_sum.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace comm_checks {

using atmanrl::dealt_sum;
using atmanrl::expects;
using atmanrl::gradient_sum;
using atmanrl::index_t;
using atmanrl::reference_backend;
using atmanrl::tensor;
namespace comm = atmanrl::comm;

/// Numbers of elements from one rank to another: different ones, many of them 0.
inline std::size_t elements_between(int from, int to) { return std::size_t(from * 3 + to * 5) % 7 % 5; }
inline std::uint32_t element_between(int from, int to, std::size_t i) {
  return std::uint32_t(from * 10000 + to * 100) + std::uint32_t(i);
}

template <class C>
void check_exchange(C& c) {
  std::vector<std::uint32_t> sent, expected;
  std::vector<std::vector<std::uint32_t>> parts(std::size_t(c.size()));
  std::vector<std::size_t> sent_counts, received_counts;
  for (int r = 0; r < c.size(); ++r) {
    sent_counts.push_back(elements_between(c.rank(), r));
    received_counts.push_back(elements_between(r, c.rank()));
    for (std::size_t i = 0; i < sent_counts.back(); ++i) sent.push_back(element_between(c.rank(), r, i));
    for (std::size_t i = 0; i < sent_counts.back(); ++i) parts[std::size_t(r)].push_back(sent.end()[-1 - int(i)]);
    for (std::size_t i = 0; i < received_counts.back(); ++i) expected.push_back(element_between(r, c.rank(), i));
  }
  std::vector<std::uint32_t> received(expected.size(), 77);
  comm::exchange<std::uint32_t>(c, sent, sent_counts, received, received_counts);
  expects(received == expected, "rank {} of {} got {}, not {}", c.rank(), c.size(), received, expected);

  auto const unknown = comm::exchange<std::uint32_t>(c, parts);
  for (int r = 0; r < c.size(); ++r) {
    std::vector<std::uint32_t> wanted;
    for (std::size_t i = elements_between(r, c.rank()); i-- > 0;) wanted.push_back(element_between(r, c.rank(), i));
    expects(unknown[std::size_t(r)] == wanted, "rank {} of {} got {} from rank {}, not {}", c.rank(), c.size(),
            unknown[std::size_t(r)], r, wanted);
  }
  // Bytes, and nothing at all.
  std::vector<std::size_t> const one(std::size_t(c.size()), 1), none(std::size_t(c.size()), 0);
  std::vector<std::byte> bytes(one.size(), std::byte(c.rank())), got(one.size());
  comm::exchange<std::byte>(c, bytes, one, got, one);
  for (int r = 0; r < c.size(); ++r) expects(got[std::size_t(r)] == std::byte(r), "rank {}: byte of {}", c.rank(), r);
  comm::exchange<double>(c, {}, none, {}, none);
}

template <class C>
void check_all_gather(C& c) {
  auto const count = [](int r) { return std::size_t(r * 2) % 5; };  // 0 of rank 0 and of rank 5
  std::vector<std::size_t> counts;
  std::vector<float> expected, mine;
  for (int r = 0; r < c.size(); ++r) {
    counts.push_back(count(r));
    for (std::size_t i = 0; i < count(r); ++i) expected.push_back(float(r) + float(i) / 8);
  }
  for (std::size_t i = 0; i < count(c.rank()); ++i) mine.push_back(float(c.rank()) + float(i) / 8);

  std::vector<float> all(expected.size(), -1.0f);
  comm::all_gather<float>(c, mine, all, counts);
  expects(all == expected, "rank {} of {} gathered {}, not {}", c.rank(), c.size(), all, expected);

  std::vector<float> in_place(expected.size(), -1.0f);
  std::size_t first = 0;
  for (int r = 0; r < c.rank(); ++r) first += count(r);
  std::copy(mine.begin(), mine.end(), in_place.begin() + std::ptrdiff_t(first));
  comm::all_gather<float>(c, std::span<float const>(in_place).subspan(first, mine.size()), in_place, counts);
  expects(in_place == expected, "rank {} of {} gathered {} in place, not {}", c.rank(), c.size(), in_place, expected);

  auto const unknown = comm::all_gather<float>(c, mine);
  expects(unknown.values == expected && unknown.counts == counts, "rank {} of {} gathered {} with counts {}", c.rank(),
          c.size(), unknown.values, unknown.counts);
  for (int r = 0; r < c.size(); ++r)
    expects(unknown.of(r).size() == count(r) && (count(r) == 0 || unknown.of(r)[0] == float(r)), "part of rank {}", r);
  auto const values = comm::all_gather_value<std::int64_t>(c, -c.rank());
  for (int r = 0; r < c.size(); ++r) expects(values[std::size_t(r)] == -r, "rank {}: value of {}", c.rank(), r);
}

/// The sentence of a communication_error, and its speaker; empty where f throws none.
template <class F>
std::pair<std::string, int> sentence_of(F&& f) {
  try {
    f();
  } catch (comm::communication_error const& e) {
    return {e.what(), e.speaker};
  }
  return {"", -1};
}

template <class C>
void check_status(C& c) {
  expects(!comm::status(c, "").has_value(), "all are well");
  comm::expects_all_well(c, "");
  for (int ill = 0; ill < c.size(); ++ill) {
    // All from `ill` on are: the first one is named.
    std::string const mine = c.rank() >= ill ? "no memory on " + std::to_string(c.rank()) : "";
    auto const found = comm::status(c, mine);
    expects(found == comm::rank_failure{ill, "no memory on " + std::to_string(ill)}, "rank {} of {} hears of {}: {}",
            c.rank(), c.size(), found ? found->rank : -1, found ? found->sentence : "nothing");
    auto const [sentence, speaker] = sentence_of([&] { comm::expects_all_well(c, mine); });
    expects(sentence == fmt::format("rank {}: no memory on {}", ill, ill) && speaker == ill, "rank {}: {}", c.rank(),
            sentence);
  }
}

template <class C>
void check_same_everywhere(C& c) {
  comm::expects_same_everywhere(c, "options", "--steps 100 --seed 7");
  comm::expects_same_everywhere(c, "nothing", "");
  for (int other = 1; other < c.size(); ++other) {
    auto const [sentence, speaker] = sentence_of([&] {
      comm::expects_same_everywhere(c, "options", c.rank() == other ? "--steps 100 --seed 8" : "--steps 100 --seed 7");
    });
    std::string const wanted = fmt::format(
        "options: rank {} differs from rank 0 from byte 19 on: it has \"--steps 100 --seed 8\" instead of \"--steps "
        "100 "
        "--seed 7\"",
        other);
    expects(sentence == wanted && speaker == 0, "rank {} of {}: {}", c.rank(), c.size(), sentence);
    // A part that ends early.
    auto const [shorter, who] =
        sentence_of([&] { comm::expects_same_everywhere(c, "build", c.rank() == other ? "abc" : "abcd"); });
    expects(shorter.find(fmt::format("build: rank {} differs from rank 0 from byte 3 on", other)) == 0 && who == 0,
            "rank {} of {}: {}", c.rank(), c.size(), shorter);
  }
}

template <class C>
void check_volume(C& c) {
  auto const n = std::uint64_t(c.size()), me = std::uint64_t(c.rank());
  comm::traffic const before = c.volume();
  std::vector<std::size_t> sent_counts, received_counts;
  std::uint64_t sent = 0, received = 0;
  for (int r = 0; r < c.size(); ++r) {
    sent_counts.push_back(elements_between(c.rank(), r));
    received_counts.push_back(elements_between(r, c.rank()));
    if (r == c.rank()) continue;
    sent += 8 * sent_counts.back();
    received += 8 * received_counts.back();
  }
  std::vector<double> out(comm::detail::total(sent_counts)), in(comm::detail::total(received_counts));
  comm::exchange<double>(c, out, sent_counts, in, received_counts);
  // Of a double from rank 0, two from rank 1 ..
  std::vector<double> const mine(me + 1);
  comm::all_gather<double>(c, mine);
  c.barrier();
  comm::traffic const counted = c.volume() - before;
  std::uint64_t const all = n * (n + 1) / 2;
  comm::traffic const expected{{sent, received},
                               {8 * (n - 1) + 8 * (me + 1) * (n - 1), 8 * (n - 1) + 8 * (all - (me + 1))}};
  expects(counted == expected, "rank {} of {} counted {} {} {} {}, not {} {} {} {}", c.rank(), c.size(),
          counted.exchange.sent, counted.exchange.received, counted.all_gather.sent, counted.all_gather.received,
          expected.exchange.sent, expected.exchange.received, expected.all_gather.sent, expected.all_gather.received);
}

/// Element i of a leaf: of sizes so different that another order of additions has other bits.
template <class T>
T element_of_leaf(std::size_t leaf, std::size_t i) {
  std::uint64_t x = (leaf * 1000003 + i + 1) * 0x9e3779b97f4a7c15u;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 32;
  return T(std::int64_t(x >> 20) - (std::int64_t(1) << 43)) / T(std::uint64_t(1) << (x & 15));
}
template <class T>
std::vector<T> leaf_of(std::size_t leaf, std::size_t elements) {
  std::vector<T> values(elements);
  for (std::size_t i = 0; i < elements; ++i) values[i] = element_of_leaf<T>(leaf, i);
  return values;
}

/// The definition: the sum of one leaf is the leaf, that of more is the sum of the largest power of two of them that is
/// smaller than their number plus the sum of the rest.
template <class T>
T sum_by_definition(std::size_t first, std::size_t leaves, std::size_t i) {
  if (leaves == 1) return element_of_leaf<T>(first, i);
  std::size_t half = 1;
  while (half * 2 < leaves) half *= 2;
  return sum_by_definition<T>(first, half, i) + sum_by_definition<T>(first + half, leaves - half, i);
}

/// Ways to deal leaves out, all of them contiguous: evenly, all to the last rank, and twos and fours until none is
/// left.
inline comm::range leaves_of(int way, std::size_t leaves, int ranks, int rank) {
  if (way == 0) return comm::share_of(leaves, ranks, rank);
  comm::range mine{0, 0};
  for (int r = 0; r <= rank; ++r) {
    std::size_t const rest = leaves - mine.end(), wanted = way == 1 ? 0 : std::size_t(r % 3 * 2);
    mine = {mine.end(), r + 1 == ranks ? rest : std::min(rest, wanted)};
  }
  return mine;
}

template <class T>
tensor<reference_backend, T, 1> tensor_of(reference_backend& backend, std::vector<T> const& values) {
  tensor<reference_backend, T, 1> t(backend, {index_t(values.size())});
  t.assign(values);
  return t;
}

template <class T, class C>
void check_gradient_sum(C& c) {
  constexpr std::size_t elements = 203, alignment = 16;
  // Pieces that do not divide slices, and one that is larger than all.
  reference_backend backend;
  gradient_sum<reference_backend, T> small(backend, c, elements, alignment, 7), large(backend, c, elements, alignment);
  comm::range const slice = large.slice();
  for (std::size_t leaves = 1; leaves <= 17; ++leaves)
    for (int way = 0; way < 3; ++way) {
      comm::range const mine = leaves_of(way, leaves, c.size(), c.rank());
      comm::traffic const before = c.volume();
      auto& sums = leaves % 2 ? small : large;
      sums.begin(mine.count);
      tensor<reference_backend, T, 1> result(backend, {elements});
      for (std::size_t leaf = mine.first; leaf < mine.end(); ++leaf) {
        result.assign(leaf_of<T>(leaf, elements));
        sums.add(result);
      }
      sums.finish(result);
      std::span<T const> const sum(result.data() + slice.first, slice.count);
      for (std::size_t i = 0; i < sum.size(); ++i) {
        T const expected = sum_by_definition<T>(0, leaves, slice.first + i);
        expects(std::memcmp(&sum[i], &expected, sizeof(T)) == 0,
                "{} leaves dealt out in way {}: rank {} of {} has {} at {}, not {}", leaves, way, c.rank(), c.size(),
                double(sum[i]), slice.first + i, double(expected));
      }
      std::size_t nodes = comm::whole_nodes(leaves, mine).size(), all = 0;
      for (std::uint64_t const k : comm::all_gather_value<std::uint64_t>(c, nodes)) all += k;
      auto const counted = (c.volume() - before).exchange;
      comm::byte_count const formula{nodes * (elements - slice.count) * sizeof(T),
                                     (all - nodes) * slice.count * sizeof(T)};
      expects(c.size() == 1 || counted == formula, "rank {} of {} exchanged {} and {} bytes, not {} and {}", c.rank(),
              c.size(), counted.sent, counted.received, formula.sent, formula.received);
    }
  auto const [sentence, speaker] = sentence_of([&] { large.begin(0); });
  expects(sentence.find("a sum of no leaves") == 0, "no leaves: {}", sentence);
}

/// Leaves that are dealt out in turn, handed over in one stretch and in several, whose ends are no ends of slices.
template <class T, class C, class B>
void check_dealt_sum(C& c, B& backend, std::size_t most_leaves = 17) {
  constexpr std::size_t elements = 203, alignment = 16;
  std::vector<comm::range> const whole{{0, elements}}, parts{{150, 53}, {90, 60}, {90, 0}, {0, 90}};
  for (bool const on_host : {false, true}) {
    tensor<B, T, 1> stretch(backend, {elements});
    dealt_sum<B, T> small(backend, c, elements, on_host, alignment, 7), large(backend, c, elements, on_host, alignment);
    comm::range const slice = large.slice();
    for (std::size_t leaves = 1; leaves <= most_leaves; ++leaves) {
      comm::traffic const before = c.volume();
      auto& sums = leaves % 2 ? small : large;
      std::size_t mine = 0;
      sums.begin(leaves);
      while (sums.begin_round()) {
        auto const leaf = sums.leaf();
        mine += leaf.has_value();
        auto const values = leaf_of<T>(leaf.value_or(0), elements);
        for (comm::range const& s : leaves % 3 == 0 ? whole : parts) {
          stretch.resize({index_t(s.count)});
          stretch.assign(std::span(values).subspan(s.first, s.count));
          sums.hand_over(s, leaf ? stretch.data() : nullptr);
        }
      }
      auto const found = sums.finish();
      std::vector<T> sum(std::size_t(found.size()));
      if (!sum.empty()) backend.copy_to_host(sum.data(), found.data(), sum.size() * sizeof(T));
      expects(sum.size() == slice.count && mine == atmanrl::dealt_leaves(leaves, c.size(), c.rank()),
              "rank {} of {}: {} elements of {} leaves", c.rank(), c.size(), sum.size(), mine);
      for (std::size_t i = 0; i < slice.count; ++i) {
        T const expected = sum_by_definition<T>(0, leaves, slice.first + i);
        expects(std::memcmp(&sum[i], &expected, sizeof(T)) == 0,
                "{} leaves in rounds: rank {} of {} has {} at {}, not {}", leaves, c.rank(), c.size(), double(sum[i]),
                slice.first + i, double(expected));
      }
      auto const counted = (c.volume() - before).exchange;
      comm::byte_count const formula{mine * (elements - slice.count) * sizeof(T),
                                     (leaves - mine) * slice.count * sizeof(T)};
      expects(c.size() == 1 || counted == formula, "rank {} of {} exchanged {} and {} bytes in rounds, not {} and {}",
              c.rank(), c.size(), counted.sent, counted.received, formula.sent, formula.received);
    }
    std::size_t most = 0;
    for (std::size_t leaves = 1; leaves <= most_leaves; leaves += 2)
      most = std::max(most, atmanrl::most_waiting_slices(leaves, c.size()));
    expects(small.buffers() == most, "{} slices have waited, not {}", small.buffers(), most);
  }
}

template <class C>
void check_all(C& c) {
  check_exchange(c);
  check_all_gather(c);
  check_status(c);
  check_same_everywhere(c);
  check_volume(c);
  check_gradient_sum<float>(c);
  check_gradient_sum<double>(c);
  reference_backend backend;
  check_dealt_sum<float>(c, backend);
}

}  // namespace comm_checks
