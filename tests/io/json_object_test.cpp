#include <atmanrl/core/random.hpp>
#include <atmanrl/io/json.hpp>

#include "catch.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

using namespace atmanrl;
namespace json_object_test {

namespace {

/// What an object should be: values in the order of their keys' first coming, looked for one by one.
struct plain_object {
  std::vector<std::pair<std::string, int>> all;

  int* find(std::string const& key) {
    for (auto& each : all)
      if (each.first == key) return &each.second;
    return nullptr;
  }
  void set(std::string const& key, int value) {
    if (int* const there = find(key))
      *there = value;
    else
      all.push_back({key, value});
  }
  void erase(std::string const& key) {
    std::erase_if(all, [&](auto const& each) { return each.first == key; });
  }
};

void check_same(json const& object, plain_object const& expected) {
  REQUIRE(object.size() == expected.all.size());
  std::size_t i = 0;
  bool same = true;
  for (auto const& [key, value] : object.items()) {
    same = same && key == expected.all[i].first && value == expected.all[i].second && object.contains(key) &&
           object.at(key) == expected.all[i].second;
    ++i;
  }
  CHECK(same);
}

}  // namespace

TEST_CASE("json object: any calls leave what a plain list of keys has, in its order") {
  random_stream draw(1, 0);
  for (int const keys : {3, 16, 17, 40, 500}) {
    json object = json::object();
    plain_object expected;
    for (int i = 0; i < 6 * keys; ++i) {
      std::string const key = std::string(std::size_t(draw.between(0, 2)), 'k') + std::to_string(draw.between(0, keys));
      switch (draw.between(0, 5)) {
        case 0:
          object.erase(key);
          expected.erase(key);
          break;
        case 1:
          object.emplace(key, i);  // leaves a value that is there
          if (!expected.find(key)) expected.set(key, i);
          break;
        case 2:
          CHECK(object.contains(key) == (expected.find(key) != nullptr));
          CHECK(object.value(key, -1) == (expected.find(key) ? *expected.find(key) : -1));
          break;
        default:
          object[key] = i;
          expected.set(key, i);
      }
    }
    INFO(keys);
    check_same(object, expected);
    json copy = object, moved = std::move(copy);
    check_same(moved, expected);
    object.clear();
    CHECK(object.empty());
    // No key is found at its old place: all come anew, in another order.
    std::reverse(expected.all.begin(), expected.all.end());
    for (auto const& [key, value] : expected.all) object[key] = value;
    check_same(object, expected);
  }
}

TEST_CASE("json object: what is parsed keeps its order, and of a key that comes twice the later value") {
  std::string text = "{\"twice\":-1";
  plain_object expected;
  expected.set("twice", 7);
  for (int i = 5000; i-- > 0;) {
    text += ",\"" + std::to_string(i) + "\":" + std::to_string(i);
    expected.set(std::to_string(i), i);
  }
  text += ",\"twice\":7}";
  check_same(parse_json(text, "text"), expected);
  CHECK(dump_json(parse_json("{\"b\":1,\"a\":{\"d\":[2],\"c\":null}}", "text")) ==
        "{\"b\":1,\"a\":{\"d\":[2],\"c\":null}}");
}

TEST_CASE("json object: equal are those with the same values, in whatever order") {
  json const a{{"x", 1}, {"y", {{"p", 2}, {"q", 3}}}}, b{{"y", {{"q", 3}, {"p", 2}}}, {"x", 1}};
  CHECK(a == b);
  CHECK(a != json{{"x", 1}, {"y", {{"p", 2}, {"q", 4}}}});
  CHECK(a != json{{"x", 1}, {"z", {{"p", 2}, {"q", 3}}}});
  CHECK(a != json{{"x", 1}});
  CHECK_THROWS_AS(a.at("w"), json::out_of_range);
}

}  // namespace json_object_test
