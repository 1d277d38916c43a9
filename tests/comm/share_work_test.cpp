#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/comm/alone.hpp>
#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/packed.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/comm/threads.hpp>

#include "catch.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace share_work_test {

using namespace atmanrl;

struct thing {
  int number = 0;
  std::string text;
  std::vector<double> values;
  std::optional<std::vector<std::string>> more;
  std::pair<float, std::string> both;
  bool operator==(thing const&) const = default;

  static constexpr auto fields() {
    return std::tuple(&thing::number, &thing::text, &thing::values, &thing::more, &thing::both);
  }
};

thing thing_of(std::size_t i) {
  thing t{int(i), std::string(i % 5, 'a'), std::vector<double>(i % 3, double(i)), {}, {float(i), "b"}};
  if (i % 2) t.more = std::vector<std::string>{"c", "", std::string(i, 'd')};
  return t;
}

TEST_CASE("packed: what was packed comes back, and bytes that are too few or too many are refused") {
  std::vector<thing> things;
  for (std::size_t i = 0; i < 9; ++i) things.push_back(thing_of(i));
  auto const bytes = comm::packed(things);
  CHECK(comm::unpacked<std::vector<thing>>(bytes) == things);
  CHECK(comm::unpacked<std::vector<std::vector<float>>>(comm::packed(std::vector<std::vector<float>>{{}, {1, 2}})) ==
        std::vector<std::vector<float>>{{}, {1, 2}});
  for (std::size_t n = 0; n < bytes.size(); ++n)
    CHECK_THROWS_AS(comm::unpacked<std::vector<thing>>(std::span(bytes).first(n)), shape_error);
  auto longer = bytes;
  longer.emplace_back();
  CHECK_THROWS_WITH(comm::unpacked<std::vector<thing>>(longer), ATMANRL_CONTAINS("left over"));
}

TEST_CASE("share_work: every rank has the values of all items, and each item was computed by one rank") {
  for (int const ranks : {1, 2, 3, 8})
    for (std::size_t const items : {0, 1, 5, 16}) {
      std::atomic<std::size_t> computed = 0, calls = 0;
      CHECK_NOTHROW(comm::threads::run(ranks, [&](comm::threads& c) {
        comm::any any(c);
        auto const all = comm::share_work<thing>(any, items, [&](std::size_t first, std::size_t count) {
          std::vector<thing> out;
          for (std::size_t i = first; i < first + count; ++i) out.push_back(thing_of(i));
          computed += count;
          ++calls;
          return out;
        });
        expects(all.size() == items, "{} values", all.size());
        for (std::size_t i = 0; i < items; ++i) expects(all[i] == thing_of(i), "item {}", i);
        expects(comm::of_first_rank(any, thing_of(std::size_t(c.rank()))) == thing_of(0), "of the first rank");
      }));
      CHECK(computed == items);
      CHECK(calls == std::min(items, std::size_t(ranks)));
    }
}

TEST_CASE("share_work: where it fails on one rank all ranks fail, in the same way and with the same words") {
  for (int const ranks : {1, 2, 4}) {
    std::atomic<int> same = 0;
    CHECK_NOTHROW(comm::threads::run(ranks, [&](comm::threads& c) {
      comm::any any(c);
      auto const words_of = [&](auto&& work) -> std::string {
        try {
          comm::share_work<int>(any, 4, [&](std::size_t first, std::size_t count) {
            for (std::size_t i = first; i < first + count; ++i) work(i);
            return std::vector<int>(count);
          });
        } catch (numeric_error const& e) {
          return fmt::format("numeric: {}", e.what());
        } catch (usage_error const& e) {
          return fmt::format("usage: {}", e.what());
        } catch (std::exception const& e) {
          return e.what();
        }
        return "nothing";
      };
      same += words_of([](std::size_t i) {
                if (i >= 2) throw numeric_error(fmt::format("item {}", i));
              }) == "numeric: item 2";
      same += words_of([](std::size_t i) {
                if (i == 0) throw usage_error("item 0");
              }) == "usage: item 0";
      // Of another kind: the rank's own exception, and for the others a sentence that names the rank.
      auto const other = words_of([](std::size_t i) {
        if (i == 3) throw std::bad_alloc();
      });
      bool const mine = c.rank() + 1 == c.size();
      same += other == (mine ? "std::bad_alloc" : fmt::format("rank {}: std::bad_alloc", c.size() - 1));
      same += words_of([](std::size_t) {}) == "nothing";
    }));
    CHECK(same == 4 * ranks);
  }
}

TEST_CASE("comm::any: without a communicator it is a single rank, and it counts what its communicator counts") {
  comm::any alone;
  CHECK(alone.size() == 1);
  CHECK(alone.rank() == 0);
  CHECK(alone.volume() == comm::traffic{});
  CHECK(comm::all_gather_value<int>(alone, 7) == std::vector{7});
  CHECK_NOTHROW(alone.barrier());
  CHECK_NOTHROW(comm::threads::run(3, [](comm::threads& c) {
    comm::any any(c), copy = any;
    expects(comm::all_gather_value<int>(copy, c.rank()) == std::vector{0, 1, 2}, "values");
    expects(any.volume() == c.volume() && any.volume().all_gather.sent == 8, "volume");
    any.barrier();
  }));
}

/// Memory of the host, and how often some of it was copied to another place.
struct watched : reference_backend {
  int copies = 0;
  void copy_to_host(void* to, void const* from, std::size_t bytes) {
    ++copies;
    reference_backend::copy_to_host(to, from, bytes);
  }
  void copy_from_host(void* to, void const* from, std::size_t bytes) {
    ++copies;
    reference_backend::copy_from_host(to, from, bytes);
  }
};

/// Moves memory of the backend itself, and counts that it was asked to.
struct moves_itself : comm::alone {
  int calls = 0;
  void exchange_on(reference_backend&, std::span<std::span<std::byte const> const> sent,
                   std::span<std::span<std::byte> const> received) {
    ++calls;
    std::copy(sent[0].begin(), sent[0].end(), received[0].begin());
  }
};

TEST_CASE("comm::any: parts that lie in several places arrive through a communicator that takes them in one piece") {
  // Without exchange_parts.
  struct plain {
    comm::threads& ranks;
    int rank() const { return ranks.rank(); }
    int size() const { return ranks.size(); }
    comm::traffic volume() const { return ranks.volume(); }
    void exchange(std::span<std::byte const> sent, std::span<std::size_t const> sent_bytes,
                  std::span<std::byte> received, std::span<std::size_t const> received_bytes) {
      ranks.exchange(sent, sent_bytes, received, received_bytes);
    }
    void all_gather(std::span<std::byte const> mine, std::span<std::byte> all, std::span<std::size_t const> bytes) {
      ranks.all_gather(mine, all, bytes);
    }
    void barrier() { ranks.barrier(); }
  };
  static_assert(Communicator<plain> && !comm::PartsCommunicator<plain>);
  CHECK_NOTHROW(comm::threads::run(3, [](comm::threads& c) {
    plain without{c};
    comm::any any(without);
    std::vector<std::byte> const one{std::byte(c.rank())}, two{std::byte(c.rank()), std::byte(9)};
    std::vector<std::span<std::byte const>> const sent{one, two, {}};
    std::size_t const sizes[] = {1, 2, 0};
    std::vector<std::vector<std::byte>> in(3, std::vector<std::byte>(sizes[c.rank()]));
    std::vector<std::span<std::byte>> const received{in[0], in[1], in[2]};
    any.exchange_parts(sent, received);
    for (int r = 0; r < 3; ++r)
      expects(in[std::size_t(r)] == (c.rank() == 0   ? std::vector{std::byte(r)}
                                     : c.rank() == 1 ? std::vector{std::byte(r), std::byte(9)}
                                                     : std::vector<std::byte>()),
              "rank {} has something else from rank {}", c.rank(), r);
    std::vector<std::span<std::byte const>> const too_few(2);
    try {
      any.exchange_parts(too_few, received);
      fail<usage_error>("two parts were accepted");
    } catch (shape_error const&) {
    }
  }));
}

TEST_CASE("comm::any_on: parts that lie in several places arrive, over the host or by the communicator itself") {
  for (int const ranks : {1, 2, 3})
    CHECK_NOTHROW(comm::threads::run(ranks, [](comm::threads& c) {
      watched backend;
      comm::any_on<watched> any(c);
      auto const part = [](int from, int to) { return std::vector<int>(std::size_t((from + to) % 3), 10 * from + to); };
      std::vector<std::vector<int>> out, in;
      std::vector<std::span<std::byte const>> sent;
      std::vector<std::span<std::byte>> received;
      for (int r = 0; r < c.size(); ++r) {
        out.push_back(part(c.rank(), r));
        in.emplace_back(part(r, c.rank()).size());
      }
      for (auto& p : out) sent.push_back(std::as_bytes(std::span(p)));
      for (auto& p : in) received.push_back(std::as_writable_bytes(std::span(p)));
      auto const before = c.volume().exchange;
      any.exchange_on(backend, sent, received);
      expects(backend.copies == 0, "{} parts were copied to be sent or received", backend.copies);
      std::size_t bytes = 0;
      for (int r = 0; r < c.size(); ++r) bytes += r == c.rank() ? 0 : sent[std::size_t(r)].size();
      expects(c.volume().exchange.sent - before.sent == bytes, "{} bytes were counted", c.volume().exchange.sent);
      for (int r = 0; r < c.size(); ++r) expects(in[std::size_t(r)] == part(r, c.rank()), "from {} to {}", r, c.rank());
    }));
  moves_itself c;
  reference_backend backend;
  comm::any_on<reference_backend> any(c);
  std::vector<int> from{1, 2}, to(2);
  std::vector const sent{std::as_bytes(std::span(from))};
  std::vector const received{std::as_writable_bytes(std::span(to))};
  any.exchange_on(backend, std::span<std::span<std::byte const> const>(sent), received);
  CHECK(to == from);
  CHECK(c.calls == 1);
}

}  // namespace share_work_test
