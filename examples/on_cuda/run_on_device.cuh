#pragma once
// A program's work on a GPU: of several ranks each has a device of its own, and NCCL carries what devices hand to each
// other where the library was built with it.
#include <atmanrl/comm/machines.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/cuda.hpp>

#include <optional>

/// `run(options, ranks)` with the options of this rank.
/// \tparam Options  what `given` points to
/// \throws atmanrl::usage_error where there is no usable device, before anything is read or written
template <class Options, class Run>
int run_on_device(void const* given, atmanrl::comm::any ranks, Run run) {
  using namespace atmanrl;
  Options o = *static_cast<Options const*>(given);
  o.device += comm::ranks_of_machine(ranks).number;
  std::optional<cuda_backend> probe;
  comm::all_or_none(ranks, [&] {
    try {
      probe.emplace(cuda_options{.device = o.device});
    } catch (cuda_error const& e) {
      throw usage_error(e.what());
    }
  });
#if defined(ATMANRL_NCCL)
  if (ranks.size() > 1) {
    comm::nccl devices(ranks, *probe);
    return run(o, comm::any_on<cuda_backend>(devices));
  }
#endif
  probe.reset();
  return run(o, comm::any_on<cuda_backend>(ranks));
}

/// The work of with_backend.hpp.
template <class Program>
int run_program_on_device(void const* options, atmanrl::comm::any ranks) {
  return run_on_device<typename Program::options>(options, ranks, [](auto const& o, auto devices) {
    return Program::template run<atmanrl::cuda_backend>(o, devices);
  });
}
