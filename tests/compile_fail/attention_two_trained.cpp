// expect: atmanrl: of two attention edits that are composed only one can have parameters to learn
#include <atmanrl/attention/compose.hpp>

struct slope {
  struct params_type {
    atmanrl::index_t parameter(atmanrl::score_site at) const { return at.head; }
    template <class T>
    T operator()(T score, T value, atmanrl::score_site at) const {
      return score - value * float(at.query - at.key);
    }
  };
  params_type params() const { return {}; }
  atmanrl::index_t parameter_count() const { return 4; }
};

atmanrl::index_t count = atmanrl::attention::compose<slope, slope>{}.parameter_count();
