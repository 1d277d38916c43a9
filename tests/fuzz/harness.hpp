#pragma once
// What the fuzz targets share. A target feeds the library one input; the input is loaded, or refused with a sentence of
// the library's own. Everything else stops the program, and libFuzzer keeps the input: an exception of another kind, a
// sentence that does not name the file, a broken promise of what was loaded, a single allocation above the target's
// bound.
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/utf8.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/json.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <typeinfo>
#include <vector>

namespace atmanrl_fuzz {

/// Ends the program; libFuzzer writes the input beside it.
[[noreturn]] inline void broken(std::string_view what, std::string_view detail = "") {
  std::fprintf(stderr, "FUZZ: %.*s: %.*s\n", int(what.size()), what.data(), int(detail.size()), detail.data());
  std::abort();
}
inline void promise(bool kept, std::string_view what) {
  if (!kept) broken("a promise is not kept", what);
}

/// The inputs that a target's corpus begins with.
class seeds {
 public:
  void add(std::string bytes) { all.push_back(std::move(bytes)); }
  /// A file of tests/fixtures.
  void fixture(char const* name) { add(atmanrl::read_text_file(std::filesystem::path(ATMANRL_FIXTURES) / name)); }
  /// The text `field` of every line of a file of tests/fixtures.
  void lines(char const* name, char const* field) {
    std::string const text = atmanrl::read_text_file(std::filesystem::path(ATMANRL_FIXTURES) / name);
    for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1)
      add(atmanrl::parse_json(text.substr(at, text.find('\n', at) - at), name)[field].get<std::string>());
  }
  std::vector<std::string> all;
};

struct target {
  char const* name;
  void (*run)(std::string const& input);
  void (*corpus)(seeds& out);
  /// A single allocation may take so many times the input's bytes. Values of JSON take 16 bytes each in memory, a field
  /// of CSV 32, and a list that grows has twice its size: `json_times`, `csv_times`.
  std::size_t times = 4;
  /// What may be allocated however small the input is: buffers of a fixed size.
  std::size_t fixed_bytes = std::size_t{1} << 18;
  /// Bytes of the inputs in which a piece of a seed is repeated.
  std::size_t repeated_bytes = std::size_t{1} << 17;
  /// Changes an input so that lengths and hashes stay right; libFuzzer's own changes are used where there is none.
  void (*mutate)(std::string& input, std::size_t most, unsigned seed) = nullptr;
};

inline constexpr std::size_t json_times = 16, csv_times = 64;

inline std::vector<target>& targets() {
  static std::vector<target> all;
  return all;
}
struct registered {
  explicit registered(target t) { targets().push_back(t); }
};

/// A file's path in the scratch folder, which is in memory where the caller has put it there.
inline std::filesystem::path scratch(std::string_view name) {
  static std::filesystem::path const folder = [] {
    char const* const named = std::getenv("ATMANRL_FUZZ_SCRATCH");
    auto const all = named ? std::filesystem::path(named) : std::filesystem::temp_directory_path();
    auto const mine = all / fmt::format("atmanrl-fuzz-{}", ::getpid());
    std::filesystem::create_directories(mine);
    static std::string const to_remove = mine.string();
    std::atexit([] {
      std::error_code ignored;
      std::filesystem::remove_all(to_remove, ignored);
    });
    return mine;
  }();
  auto const path = folder / name;
  std::filesystem::create_directories(path.parent_path());
  return path;
}

/// A scratch file that stays open: millions of inputs are written into it.
class scratch_file {
 public:
  explicit scratch_file(std::string_view name)
      : path_(scratch(name)),
        text_(path_.string()),
        fd_(atmanrl::detail::open_descriptor(path_, O_RDWR | O_CREAT, 0600)) {
    promise(fd_.is_open(), "the scratch file can be opened");
  }
  std::filesystem::path const& holding(std::string_view bytes) const {
    promise(::pwrite(fd_.get(), bytes.data(), bytes.size(), 0) == ssize_t(bytes.size()) &&
                ::ftruncate(fd_.get(), off_t(bytes.size())) == 0,
            "the scratch file can be written");
    return path_;
  }
  std::filesystem::path const& path() const { return path_; }
  std::string const& text() const { return text_; }

 private:
  std::filesystem::path path_;
  std::string text_;
  atmanrl::detail::descriptor fd_;
};

/// How often something was not refused since the program began.
inline std::uint64_t& acceptances() {
  static std::uint64_t count = 0;
  return count;
}

/// One printable line of bounded length that names `named`.
inline void check_sentence(std::string_view sentence, std::string_view named) {
  promise(!sentence.empty() && sentence.size() <= 4096, "a refusal is a sentence of at most 4096 bytes");
  if (sentence.find(named) == sentence.npos) broken("a refusal does not name the file", sentence);
  for (std::string_view rest = sentence; !rest.empty();) {
    auto const unit = atmanrl::next_utf8(rest);
    bool const shown = unit.kind == atmanrl::utf8_unit::state::valid && unit.code >= 0x20 && unit.code != 0x7f;
    if (!shown) broken("a refusal is not one printable line", sentence);
    rest.remove_prefix(unit.length);
  }
}

/// Whether `act` ends without a refusal.
/// \param named  what a refusal must name: the file
/// \tparam Refusal  file_error for files; usage_error is that of a caller's own text
template <class... Refusal, class Act>
bool accepted(std::string_view named, Act&& act) {
  try {
    act();
    ++acceptances();
    return true;
  } catch (atmanrl::error const& e) {
    bool const own = dynamic_cast<atmanrl::file_error const*>(&e) != nullptr ||
                     (... || (dynamic_cast<Refusal const*>(&e) != nullptr));
    if (!own) broken(fmt::format("a refusal of the wrong kind, {}", typeid(e).name()), e.what());
    check_sentence(e.what(), named);
  } catch (std::exception const& e) {
    broken(fmt::format("a foreign exception, {}", typeid(e).name()), e.what());
  } catch (...) {
    broken("an exception that is none of std::exception");
  }
  return false;
}

/// Up to the first byte `cut`, and what is after it.
inline std::pair<std::string_view, std::string_view> halves(std::string_view bytes, char cut = '\0') {
  std::size_t const at = bytes.find(cut);
  if (at == bytes.npos) return {bytes, {}};
  return {bytes.substr(0, at), bytes.substr(at + 1)};
}

}  // namespace atmanrl_fuzz

/// libFuzzer's changes of some bytes; gives their new number.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace atmanrl_fuzz {

/// Lets libFuzzer change bytes [first, last) so that the whole has at most `most`.
inline void mutate_part(std::string& bytes, std::size_t first, std::size_t last, std::size_t most) {
  std::size_t const others = bytes.size() - (last - first);
  std::size_t const room = std::max<std::size_t>(1, most > others ? most - others : 0);
  std::string part = bytes.substr(first, std::min(last - first, room));
  std::size_t const size = part.size();
  part.resize(room);
  part.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(part.data()), size, room));
  bytes.replace(first, last - first, part);
  if (bytes.size() > most) bytes.resize(most);
}

/// Bytes with a u64 at `at` that says how long the header after it is: changes the header or what follows it, and
/// keeps the length right.
inline void mutate_framed(std::string& bytes, std::size_t at, std::size_t tail, std::size_t most, unsigned seed) {
  std::uint64_t length = 0;
  bool framed = bytes.size() >= at + 8 + tail;
  if (framed) std::memcpy(&length, bytes.data() + at, 8);
  framed = framed && length <= bytes.size() - at - 8 - tail && seed % 8 != 0;
  if (!framed) return mutate_part(bytes, 0, bytes.size(), most);
  std::size_t const begin = at + 8, middle = begin + std::size_t(length), size = bytes.size();
  if (seed % 8 < 3 && middle < size - tail) return mutate_part(bytes, middle, size - tail, most);
  mutate_part(bytes, begin, middle, most);
  std::uint64_t const longer = std::min(bytes.size() - begin, std::size_t(length) + bytes.size() - size);
  std::memcpy(bytes.data() + at, &longer, 8);
}

}  // namespace atmanrl_fuzz
