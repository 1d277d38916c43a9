// The communicator over NCCL, compiled and linked for real; what runs needs no device.
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/cuda/nccl.cuh>

#include <cstdio>
#include <string>

template class atmanrl::comm::nccl<atmanrl::comm::alone>;
template class atmanrl::comm::nccl<atmanrl::comm::threads>;

int main() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return 1;
  std::string const complaint = atmanrl::comm::detail::nccl_version_complaint(version);
  std::printf("NCCL %s%s%s\n", atmanrl::comm::detail::nccl_version_text(version).c_str(), complaint.empty() ? "" : ": ",
              complaint.c_str());
  return complaint.empty() ? 0 : 1;
}
