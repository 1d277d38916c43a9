#pragma once

/// \file
/// Memory that outlives a call. Functions that need caches, activations and other large buffers borrow them from the
/// model's workspace and give them back, so that the second step of a run finds what the first one allocated, and
/// sampling, mask training and updates share one set.

#include <algorithm>
#include <memory>
#include <typeindex>
#include <typeinfo>
#include <utility>
#include <vector>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// An object of a workspace, until this handle goes. Its contents are what the last borrower left.
template <class Space>
class borrowed {
 public:
  using shelf = std::vector<std::pair<std::type_index, std::shared_ptr<void>>>;

  borrowed(std::shared_ptr<shelf> home, std::shared_ptr<Space> space)
      : home_(std::move(home)), space_(std::move(space)) {}
  borrowed(borrowed&&) = default;
  borrowed& operator=(borrowed&&) = delete;
  ~borrowed() {
    if (space_) home_->emplace_back(typeid(Space), std::move(space_));  // `borrow` made room for it
  }

  Space* operator->() const { return space_.get(); }
  Space& operator*() const { return *space_; }

 private:
  std::shared_ptr<shelf> home_;
  std::shared_ptr<Space> space_;
};

/// Who borrows the same type twice at once gets two objects. One thread at a time, like the backend.
class workspace {
 public:
  /// \param make  `Space make()`, called where no such object is there
  template <class Space, class Make>
  borrowed<Space> borrow(Make&& make) {
    auto const found =
        std::find_if(shelf_->rbegin(), shelf_->rend(), [](auto const& s) { return s.first == typeid(Space); });
    if (found != shelf_->rend()) {
      auto space = std::static_pointer_cast<Space>(std::move(found->second));
      shelf_->erase(std::next(found).base());
      return {shelf_, std::move(space)};
    }
    shelf_->reserve(++made_);
    return {shelf_, std::make_shared<Space>(make())};
  }
  template <class Space>
  borrowed<Space> borrow() {
    return borrow<Space>([] { return Space{}; });
  }

  /// Frees what is not lent.
  void clear() { shelf_->clear(); }

 private:
  std::shared_ptr<typename borrowed<int>::shelf> shelf_ = std::make_shared<typename borrowed<int>::shelf>();
  std::size_t made_ = 0;
};

}  // namespace atmanrl::inline ATMANRL_ABI
