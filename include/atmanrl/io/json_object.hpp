#pragma once

/// \file
/// The object of a JSON value: keys in the order in which they came, and found without going through all of them.

#include <xxhash.h>
#include <nlohmann/ordered_map.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// nlohmann::ordered_map keeps the order of a file, but goes through all earlier keys for every new one, so that the
/// vocabulary of a tokenizer takes as long as the square of its size. This one has an index beside it once it is large.
/// Two objects are equal when they have the same values under the same keys, in whatever order.
template <class Key, class T, class Less = std::less<Key>, class Allocator = std::allocator<std::pair<Key const, T>>>
class json_object : public nlohmann::ordered_map<Key, T, Less, Allocator> {
  using base = nlohmann::ordered_map<Key, T, Less, Allocator>;

 public:
  using typename base::const_iterator;
  using typename base::iterator;
  using typename base::size_type;
  using typename base::value_type;

  json_object() = default;
  explicit json_object(Allocator const& a) : base(a) {}
  template <class It>
  json_object(It first, It last, Allocator const& a = Allocator()) : base(a) {
    insert(first, last);
  }
  json_object(std::initializer_list<value_type> all, Allocator const& a = Allocator())
      : json_object(all.begin(), all.end(), a) {}

  iterator find(std::string_view key) { return this->begin() + std::ptrdiff_t(position(key)); }
  const_iterator find(std::string_view key) const { return this->begin() + std::ptrdiff_t(position(key)); }
  size_type count(std::string_view key) const { return position(key) < this->size() ? 1 : 0; }

  T& at(std::string_view key) { return this->data()[existing(key)].second; }
  T const& at(std::string_view key) const { return this->data()[existing(key)].second; }
  T const& operator[](std::string_view key) const { return at(key); }
  template <class K>
  T& operator[](K&& key) {
    return emplace(std::forward<K>(key), T{}).first->second;
  }

  template <class K, class V>
  std::pair<iterator, bool> emplace(K&& key, V&& value) {
    if (auto const found = find(key); found != this->end()) return {found, false};
    this->emplace_back(std::forward<K>(key), std::forward<V>(value));
    if (!places_.empty() && 2 * this->size() <= places_.size())
      enter(this->size() - 1);
    else if (this->size() > most_without_index)
      index();
    return {this->end() - 1, true};
  }
  std::pair<iterator, bool> insert(value_type&& value) { return emplace(value.first, std::move(value.second)); }
  std::pair<iterator, bool> insert(value_type const& value) { return emplace(value.first, value.second); }
  template <class It>
  void insert(It first, It last) {
    for (; first != last; ++first) emplace(first->first, first->second);
  }

  iterator erase(iterator first, iterator last) {
    auto const next = base::erase(first, last) - this->begin();
    places_.clear();
    if (this->size() > most_without_index) index();
    return this->begin() + next;
  }
  iterator erase(iterator at) { return erase(at, at + 1); }
  size_type erase(std::string_view key) {
    auto const found = find(key);
    if (found == this->end()) return 0;
    erase(found);
    return 1;
  }
  void clear() {
    base::clear();
    places_.clear();
  }

  friend bool operator==(json_object const& a, json_object const& b) {
    return a.size() == b.size() && std::all_of(a.begin(), a.end(), [&](value_type const& each) {
             auto const other = b.find(each.first);
             return other != b.end() && other->second == each.second;
           });
  }

 private:
  static constexpr std::size_t most_without_index = 16;

  /// A file of a stranger's may have been written for one hash; nothing depends on which it is.
  static std::size_t hash(std::string_view key) {
    static std::uint64_t const seed = std::random_device{}();
    return std::size_t(XXH64(key.data(), key.size(), seed));
  }

  /// Of the key; the number of elements where it is not there.
  std::size_t position(std::string_view key) const {
    value_type const* const all = this->data();
    if (places_.empty()) {
      std::size_t i = 0;
      while (i < this->size() && all[i].first != key) ++i;
      return i;
    }
    for (std::size_t slot = hash(key);; ++slot) {
      std::uint32_t const place = places_[slot & (places_.size() - 1)];
      if (place == 0) return this->size();
      if (all[place - 1].first == key) return place - 1;
    }
  }
  std::size_t existing(std::string_view key) const {
    std::size_t const i = position(key);
    if (i == this->size()) throw std::out_of_range("key not found");  // as nlohmann's: basic_json says it in its words
    return i;
  }

  void enter(std::size_t position) {
    std::size_t slot = hash(this->data()[position].first);
    while (places_[slot & (places_.size() - 1)] != 0) ++slot;
    places_[slot & (places_.size() - 1)] = std::uint32_t(position + 1);
  }
  void index() {
    std::size_t slots = 4 * most_without_index;
    while (slots < 4 * this->size()) slots *= 2;
    places_.assign(slots, 0);
    for (std::size_t i = 0; i < this->size(); ++i) enter(i);
  }

  std::vector<std::uint32_t> places_;  // of each key by its hash, from 1, at most half of them taken; empty while small
};

}  // namespace atmanrl::inline ATMANRL_ABI
