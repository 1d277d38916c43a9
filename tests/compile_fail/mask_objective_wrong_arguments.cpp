// expect: atmanrl: not a mask objective: write `double operator\(\)\(atmanrl::answer_log_probs const&, std::span<double> derivative\) const`
#include <atmanrl/saliency/mask_options.hpp>

struct of_one_number {
  static constexpr std::string_view name = "of_one_number";
  double operator()(double cross_entropy) const { return cross_entropy; }
};
atmanrl::mask_options_of<atmanrl::masks::additive, of_one_number> const options;
