// expect: atmanrl: the attention policy of an update edit has parameters, but nothing would train them
#include <atmanrl/rl/update_edits/update_edit.hpp>

struct slope {
  struct params_type {
    atmanrl::index_t parameter(atmanrl::score_site) const { return 0; }
    template <class T>
    T operator()(T score, T value, atmanrl::score_site at) const {
      return score - value * float(at.query - at.key);
    }
  };
  params_type params() const { return {}; }
  atmanrl::index_t parameter_count() const { return 1; }
};
struct learns {
  template <class B>
  slope operator()(B&, std::span<atmanrl::training_rollout const* const>) const {
    return {};
  }
};
static_assert(atmanrl::detail::explain_update_edit<learns>());
