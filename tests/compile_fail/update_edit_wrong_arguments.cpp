// expect: atmanrl: not an UpdateEdit: write `template <class B> auto operator\(\)\(B& backend, std::span<atmanrl::training_rollout const\* const> rollouts\) const`
#include <atmanrl/rl/update_edits/update_edit.hpp>

struct an_attention_edit {
  atmanrl::attention::none::params_type params() const { return {}; }
};
static_assert(atmanrl::detail::explain_update_edit<an_attention_edit>());
