#pragma once

/// \file
/// Values as bytes, to be handed from rank to rank of one build on one kind of machine. They are no file format.

#include <atmanrl/core/error.hpp>

#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::comm {

namespace detail {
/// A struct S that lists its fields: `static constexpr auto fields() { return std::tuple(&S::first, &S::second); }`.
template <class T>
concept ListsFields = requires {
  T::fields();
};
template <class T, class F>
requires ListsFields<std::remove_const_t<T>>
void each_field(T& value, F&& f) {
  std::apply([&](auto... field) { (f(value.*field), ...); }, T::fields());
}
}  // namespace detail

/// What is packed: trivially copyable values, strings, vectors, optionals and pairs of them, and structs that list
/// their fields (`detail::ListsFields`).
class packer {
 public:
  template <class T>
  void operator()(T const& value) {
    if constexpr (detail::ListsFields<T>) {
      detail::each_field(value, *this);
    } else if constexpr (std::is_trivially_copyable_v<T>) {
      add(&value, sizeof value);
    } else if constexpr (requires { value.first, value.second; }) {
      (*this)(value.first);
      (*this)(value.second);
    } else if constexpr (requires { value.has_value(); }) {
      (*this)(value.has_value());
      if (value) (*this)(*value);
    } else {
      (*this)(std::size_t(value.size()));
      for (auto const& x : value) (*this)(x);
    }
  }
  // In one piece: their elements may be many.
  template <class T>
  requires std::is_arithmetic_v<T>
  void operator()(std::vector<T> const& values) {
    (*this)(values.size());
    add(values.data(), values.size() * sizeof(T));
  }
  void operator()(std::string const& text) {
    (*this)(text.size());
    add(text.data(), text.size());
  }

  std::vector<std::byte> const& bytes() const { return bytes_; }

 private:
  void add(void const* from, std::size_t count) {
    auto const* const begin = static_cast<std::byte const*>(from);
    bytes_.insert(bytes_.end(), begin, begin + count);
  }
  std::vector<std::byte> bytes_;
};

/// Reads back in the same order.
/// \throws shape_error where there are not as many bytes as are asked for
class unpacker {
 public:
  explicit unpacker(std::span<std::byte const> bytes) : bytes_(bytes) {}

  template <class T>
  void operator()(T& value) {
    if constexpr (detail::ListsFields<T>) {
      detail::each_field(value, *this);
    } else if constexpr (std::is_trivially_copyable_v<T>) {
      take(&value, sizeof value);
    } else if constexpr (requires { value.first, value.second; }) {
      (*this)(value.first);
      (*this)(value.second);
    } else if constexpr (requires { value.has_value(); }) {
      value.reset();
      if (get<bool>()) (*this)(value.emplace());
    } else {
      value.clear();
      for (std::size_t n = get<std::size_t>(); n > 0; --n) (*this)(value.emplace_back());
    }
  }
  template <class T>
  requires std::is_arithmetic_v<T>
  void operator()(std::vector<T>& values) {
    auto const n = get<std::size_t>();
    expects<shape_error>(n <= bytes_.size() / sizeof(T), "{} values in {} packed bytes", n, bytes_.size());
    values.resize(n);
    take(values.data(), n * sizeof(T));
  }
  void operator()(std::string& text) {
    auto const n = get<std::size_t>();
    expects<shape_error>(n <= bytes_.size(), "a text of {} in {} packed bytes", n, bytes_.size());
    text.resize(n);
    take(text.data(), n);
  }

  template <class T>
  T get() {
    T value{};
    (*this)(value);
    return value;
  }
  bool at_end() const { return bytes_.empty(); }

 private:
  void take(void* to, std::size_t count) {
    expects<shape_error>(count <= bytes_.size(), "{} bytes are wanted where {} packed ones are left", count,
                         bytes_.size());
    if (count) std::memcpy(to, bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
  }
  std::span<std::byte const> bytes_;
};

template <class T>
std::vector<std::byte> packed(T const& value) {
  packer p;
  p(value);
  return p.bytes();
}

/// \throws shape_error where the bytes are not those of one T
template <class T>
T unpacked(std::span<std::byte const> bytes) {
  unpacker u(bytes);
  T value = u.get<T>();
  expects<shape_error>(u.at_end(), "packed bytes are left over");
  return value;
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm
