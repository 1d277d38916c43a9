#pragma once
// What holds for every DeviceCommunicator and backend, as checks.hpp has it for every communicator.
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/comm/device_parts.hpp>

#include "comm/checks.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace comm_checks {

/// A place of its own in the backend's memory for each rank, with some bytes around those that are sent.
template <class B>
class places {
 public:
  places(B& backend, std::vector<std::size_t> const& bytes) : sizes(bytes) {
    for (std::size_t const n : bytes)
      parts.emplace_back(backend, std::array<atmanrl::index_t, 1>{atmanrl::index_t(n + 2 * margin)}).fill_zero();
  }
  void assign(std::size_t r, std::vector<std::byte> values) {
    values.insert(values.begin(), margin, std::byte(0));
    values.insert(values.end(), margin, std::byte(0));
    parts[r].assign(values);
  }
  std::span<std::byte> of(std::size_t r) { return {parts[r].data() + margin, sizes[r]}; }
  std::vector<std::span<std::byte>> received() {
    std::vector<std::span<std::byte>> all;
    for (std::size_t r = 0; r < sizes.size(); ++r) all.push_back(of(r));
    return all;
  }
  std::vector<std::span<std::byte const>> sent() {
    auto const all = received();
    return {all.begin(), all.end()};
  }
  std::vector<std::byte> host(std::size_t r) const {
    auto const all = parts[r].to_host();
    for (std::size_t i = 0; i < margin; ++i)
      expects(all[i] == std::byte(0) && all[all.size() - 1 - i] == std::byte(0), "bytes around a part were written");
    return {all.begin() + margin, all.end() - margin};
  }

 private:
  static constexpr std::size_t margin = 3;  // so that parts are not aligned either
  std::vector<std::size_t> sizes;
  std::vector<atmanrl::tensor<B, std::byte, 1>> parts;
};

inline std::vector<std::byte> bytes_of(int from, int to, std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = std::byte((std::size_t(from * 31 + to * 7) + i * 13) % 255 + 1);
  return bytes;
}

/// Parts of any size, empty ones and a rank's own among them, are those that the host's exchange gives.
template <class C, class B>
void check_parts(C& c, B& backend) {
  auto const ranks = std::size_t(c.size());
  auto const between = [&](int from, int to) {
    return elements_between(from, to) * 5 + (to == (from + 1) % c.size() ? 70001 : 0);
  };
  std::vector<std::size_t> sent_bytes, received_bytes;
  std::vector<std::byte> on_host;
  for (int r = 0; r < c.size(); ++r) {
    sent_bytes.push_back(between(c.rank(), r));
    received_bytes.push_back(between(r, c.rank()));
    auto const part = bytes_of(c.rank(), r, sent_bytes.back());
    on_host.insert(on_host.end(), part.begin(), part.end());
  }
  std::vector<std::byte> expected(comm::detail::total(received_bytes));
  comm::exchange<std::byte>(c, on_host, sent_bytes, expected, received_bytes);

  places<B> sent(backend, sent_bytes), received(backend, received_bytes);
  for (int r = 0; r < c.size(); ++r) sent.assign(std::size_t(r), bytes_of(c.rank(), r, sent_bytes[std::size_t(r)]));
  comm::traffic const before = c.volume();
  c.exchange_on(backend, sent.sent(), received.received());
  comm::byte_count const counted = (c.volume() - before).exchange;
  auto const me = std::size_t(c.rank());
  comm::byte_count const wanted{comm::detail::total(sent_bytes) - sent_bytes[me],
                                comm::detail::total(received_bytes) - received_bytes[me]};
  expects(counted == wanted && (c.volume() - before).all_gather == comm::byte_count{},
          "rank {} counted {} and {} bytes", c.rank(), counted.sent, counted.received);
  for (std::size_t r = 0, at = 0; r < ranks; at += received_bytes[r++]) {
    auto const got = received.host(r);
    expects(std::ranges::equal(got, std::span(expected).subspan(at, received_bytes[r])),
            "rank {} of {}: the part of rank {} differs from the host's", c.rank(), c.size(), r);
  }
  std::vector<std::span<std::byte const>> const nothing(ranks);
  std::vector<std::span<std::byte>> const nowhere(ranks);
  c.exchange_on(backend, nothing, nowhere);
}

/// The same part for everybody is an all-gather; a rank's own may lie where it is received.
template <class C, class B>
void check_gathered_parts(C& c, B& backend) {
  std::vector<std::size_t> bytes;
  for (int r = 0; r < c.size(); ++r) bytes.push_back(std::size_t(r * 4) % 11);  // none of rank 0
  auto const me = std::size_t(c.rank());
  for (bool const in_place : {false, true}) {
    places<B> mine(backend, {bytes[me]}), all(backend, bytes);
    (in_place ? all : mine).assign(in_place ? me : 0, bytes_of(c.rank(), 0, bytes[me]));
    std::vector<std::span<std::byte const>> const same(std::size_t(c.size()), in_place ? all.of(me) : mine.of(0));
    c.exchange_on(backend, same, all.received());
    for (int r = 0; r < c.size(); ++r)
      expects(all.host(std::size_t(r)) == bytes_of(r, 0, bytes[std::size_t(r)]), "rank {}: part of rank {}", c.rank(),
              r);
  }
}

/// What has come goes on at once, without a wait of the host: after a round everybody has its own again.
template <class C, class B>
void check_order_of_parts(C& c, B& backend) {
  auto const ranks = std::size_t(c.size()), me = std::size_t(c.rank());
  std::size_t const next = (me + 1) % ranks, previous = (me + ranks - 1) % ranks;
  places<B> token(backend, {64, 64});
  token.assign(0, bytes_of(c.rank(), 1, 64));
  for (std::size_t step = 0; step < ranks; ++step) {
    std::vector<std::span<std::byte const>> sent(ranks);
    std::vector<std::span<std::byte>> received(ranks);
    sent[next] = token.of(step % 2);
    received[previous] = token.of((step + 1) % 2);
    c.exchange_on(backend, sent, received);
    backend.fill_zero(token.of(step % 2).data(), 64);  // after it in the order of the backend's work
  }
  expects(token.host(ranks % 2) == bytes_of(c.rank(), 1, 64), "rank {} of {} has another token", c.rank(), c.size());
}

/// Sizes and numbers of parts that do not fit are one sentence on all ranks, and no data has moved.
template <class C, class B>
void check_parts_that_differ(C& c, B& backend) {
  auto const ranks = std::size_t(c.size());
  places<B> sent(backend, std::vector<std::size_t>(ranks, 4)), received(backend, std::vector<std::size_t>(ranks, 4));
  int const last = c.size() - 1;
  auto parts = sent.sent();
  if (c.rank() == 0) parts[std::size_t(last)] = parts[std::size_t(last)].first(3);
  auto const [sentence, speaker] = sentence_of([&] { c.exchange_on(backend, parts, received.received()); });
  std::string const wanted = fmt::format("exchange_on: rank 0 sends 3 bytes to rank {}, which expects 4", last);
  expects(sentence == wanted && speaker == last, "rank {}: {}", c.rank(), sentence);

  parts.resize(c.rank() == last ? ranks + 1 : ranks);
  auto const [number, who] = sentence_of([&] { c.exchange_on(backend, parts, received.received()); });
  std::string const counts = fmt::format("exchange_on among {} ranks: rank {} has {} parts to send and {} to receive",
                                         ranks, last, ranks + 1, ranks);
  expects(number == counts && who == last, "rank {}: {}", c.rank(), number);
  for (std::size_t r = 0; r < ranks; ++r)
    expects(received.host(r) == std::vector<std::byte>(4), "rank {} has received from {}", c.rank(), r);
}

template <class C, class B>
void check_exchange_on(C& c, B& backend) {
  static_assert(atmanrl::DeviceCommunicator<C, B>);
  check_parts(c, backend);
  check_gathered_parts(c, backend);
  check_order_of_parts(c, backend);
  check_parts_that_differ(c, backend);
}

}  // namespace comm_checks
