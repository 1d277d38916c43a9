#include <atmanrl/nn/workspace.hpp>

#include "catch.hpp"

#include <vector>

using namespace atmanrl;

namespace workspace_test {

TEST_CASE("workspace: what was given back is lent again, as it was left") {
  workspace w;
  std::vector<int>* first = nullptr;
  {
    auto const mine = w.borrow<std::vector<int>>();
    first = &*mine;
    mine->assign(100, 7);
  }
  auto const again = w.borrow<std::vector<int>>([]() -> std::vector<int> {
    FAIL("there is one");
    return {};
  });
  CHECK(&*again == first);
  CHECK(again->size() == 100);
  auto const beside = w.borrow<std::vector<int>>();
  CHECK(&*beside != first);
  CHECK(beside->empty());
}

TEST_CASE("workspace: types are kept apart, and the handle may outlive the workspace") {
  std::vector<int> const values{1, 2, 3};
  auto const make = [&] { return values; };
  auto w = std::make_unique<workspace>();
  { auto const letters = w->borrow<std::vector<char>>(); }
  auto const numbers = w->borrow<std::vector<int>>(make);
  CHECK(*numbers == values);
  w.reset();
  CHECK(*numbers == values);
}

TEST_CASE("workspace: clear frees what is not lent") {
  workspace w;
  auto const count = std::make_shared<int>(0);
  {
    auto const a = w.borrow<std::shared_ptr<int>>([&] { return count; });
  }
  CHECK(count.use_count() == 2);
  w.clear();
  CHECK(count.use_count() == 1);
}

}  // namespace workspace_test
