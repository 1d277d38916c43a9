# The communicator over NCCL: targets that link atmanrl::nccl, and are prepared by atmanrl_use_cuda, may include
# <atmanrl/cuda/nccl.cuh>. The target is there where nccl.h and libnccl are, and is never installed, so that projects
# without NCCL do not look for it. NCCL_ROOT, CUDA_HOME and CUDA_PATH say where to look besides the usual places.

# Adds atmanrl::nccl if NCCL is found, and sets NCCL_INCLUDE_DIR and NCCL_LIBRARY.
macro(atmanrl_add_nccl)
  set(atmanrl_nccl_places HINTS ${NCCL_ROOT} ENV NCCL_ROOT ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda)
  find_path(NCCL_INCLUDE_DIR nccl.h ${atmanrl_nccl_places} PATH_SUFFIXES include)
  find_library(NCCL_LIBRARY nccl ${atmanrl_nccl_places} PATH_SUFFIXES lib lib64)
  mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)
  if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY AND NOT TARGET atmanrl::nccl)
    add_library(atmanrl::nccl INTERFACE IMPORTED GLOBAL)
    target_include_directories(atmanrl::nccl SYSTEM INTERFACE "${NCCL_INCLUDE_DIR}")
    target_link_libraries(atmanrl::nccl INTERFACE atmanrl::atmanrl "${NCCL_LIBRARY}")
    target_compile_definitions(atmanrl::nccl INTERFACE ATMANRL_NCCL)
  endif()
endmacro()
