#pragma once

/// \file
/// Values of GGUF's metadata as they lie in the file, and their conversion to the type that a reader asks for.

#include <atmanrl/core/error.hpp>
#include <atmanrl/io/dtype.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {
namespace detail {

enum class gguf_kind : std::uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12
};

/// Bytes of one value of a kind; for strings and arrays the least that one can take.
constexpr std::uint64_t gguf_kind_bytes(gguf_kind kind) {
  constexpr std::array<std::uint8_t, 13> bytes{1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return bytes[std::size_t(kind)];
}

/// A metadata value as it lies in the file. Strings are views into the mapping.
struct gguf_value;
using gguf_strings = std::vector<std::string_view>;
struct gguf_numbers {
  gguf_kind kind;
  std::span<std::byte const> bytes;
  std::size_t size() const { return bytes.size() / gguf_kind_bytes(kind); }
};
struct gguf_nested {
  std::vector<gguf_value> items;
};
struct gguf_value {
  std::variant<std::int64_t, std::uint64_t, double, bool, std::string_view, gguf_strings, gguf_numbers, gguf_nested> as;
};

template <class T>
struct vector_item {};
template <class T>
struct vector_item<std::vector<T>> {
  using type = T;
};
template <class T>
concept VectorOfItems = requires {
  typename vector_item<T>::type;
};

/// Turns a value into a T or throws file_error with the names of the file and the key.
struct gguf_conversion {
  std::string_view file, key;

  [[noreturn]] void wrong_kind(char const* wanted) const {
    fail<file_error>("{}: the metadata key {} is not {}", file, printable(key), wanted);
  }

  template <class T, class From>
  T checked(From from) const {
    if constexpr (std::same_as<T, bool>) {
      if constexpr (std::same_as<From, bool>) return from;
      wrong_kind("a truth value");
    } else if constexpr (std::integral<T>) {
      if constexpr (std::integral<From> && !std::same_as<From, bool>) {
        expects<file_error>(std::in_range<T>(from), "{}: the metadata key {} is {}, which is out of range", file,
                            printable(key), from);
        return T(from);
      }
      wrong_kind("a whole number");
    } else if constexpr (std::floating_point<T>) {
      if constexpr (std::is_arithmetic_v<From> && !std::same_as<From, bool>) return T(from);
      wrong_kind("a number");
    } else {
      if constexpr (std::same_as<From, std::string_view>) return T(from);
      wrong_kind("a text");
    }
  }

  template <class T>
  T checked_number(gguf_numbers const& list, std::size_t i) const {
    std::byte const* const at = list.bytes.data() + i * gguf_kind_bytes(list.kind);
    switch (list.kind) {
      case gguf_kind::u8:
        return checked<T>(std::uint64_t(load_unaligned<std::uint8_t>(at)));
      case gguf_kind::i8:
        return checked<T>(std::int64_t(load_unaligned<std::int8_t>(at)));
      case gguf_kind::u16:
        return checked<T>(std::uint64_t(load_unaligned<std::uint16_t>(at)));
      case gguf_kind::i16:
        return checked<T>(std::int64_t(load_unaligned<std::int16_t>(at)));
      case gguf_kind::u32:
        return checked<T>(std::uint64_t(load_unaligned<std::uint32_t>(at)));
      case gguf_kind::i32:
        return checked<T>(std::int64_t(load_unaligned<std::int32_t>(at)));
      case gguf_kind::u64:
        return checked<T>(load_unaligned<std::uint64_t>(at));
      case gguf_kind::i64:
        return checked<T>(load_unaligned<std::int64_t>(at));
      case gguf_kind::f32:
        return checked<T>(double(load_unaligned<float>(at)));
      case gguf_kind::f64:
        return checked<T>(load_unaligned<double>(at));
      case gguf_kind::boolean:
        return checked<T>(load_unaligned<std::uint8_t>(at) != 0);
      default:
        wrong_kind("a list of numbers");
    }
  }

  template <class T>
  T to(gguf_value const& v) const {
    if constexpr (VectorOfItems<T>) {
      using item = typename vector_item<T>::type;
      T out;
      if (auto const* const strings = std::get_if<gguf_strings>(&v.as)) {
        out.reserve(strings->size());
        for (std::string_view const s : *strings) out.push_back(checked<item>(s));
      } else if (auto const* const numbers = std::get_if<gguf_numbers>(&v.as)) {
        out.reserve(numbers->size());
        for (std::size_t i = 0; i < numbers->size(); ++i) out.push_back(checked_number<item>(*numbers, i));
      } else {
        wrong_kind("a list");
      }
      return out;
    } else {
      return std::visit(
          [&]<class From>(From const& from) -> T {
            if constexpr (std::is_arithmetic_v<From> || std::same_as<From, std::string_view>) {
              return checked<T>(from);
            } else {
              wrong_kind("a single value");
            }
          },
          v.as);
    }
  }
};

}  // namespace detail
}  // namespace atmanrl::inline ATMANRL_ABI
