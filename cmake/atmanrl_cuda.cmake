# The CUDA backend in a project: atmanrl_use_cuda(TARGET...) prepares targets whose .cu sources include
# <atmanrl/cuda.hpp>. Called from file scope, because it enables the language; users of the CPU never need the toolkit.
#
# Set CMAKE_CUDA_ARCHITECTURES to override what is compiled for: machine code for sm_80, sm_90 and sm_100, and PTX for
# what comes later.
macro(atmanrl_use_cuda)
  get_property(atmanrl_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)  # CMake's own default is nvcc's oldest
  endif()
  # Without this CMake links cudart_static beside the shared runtime: two runtimes in one program.
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  if(NOT "CUDA" IN_LIST atmanrl_languages)
    enable_language(CUDA)
  endif()
  find_package(CUDAToolkit 12 REQUIRED)
  foreach(atmanrl_target ${ARGN})
    target_link_libraries(${atmanrl_target} PRIVATE CUDA::cudart CUDA::cublas)
    # CMake 3.25.1 does not know that nvcc has C++20. fmt 9 drops its constexpr under nvcc but keeps its callers.
    target_compile_options(${atmanrl_target} PRIVATE
                           "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-std=c++20 --expt-relaxed-constexpr -DFMT_USE_CONSTEXPR=1>")
  endforeach()
endmacro()
