# The CUDA backend in a project: atmanrl_use_cuda(TARGET...) prepares targets whose .cu sources include
# <atmanrl/cuda.hpp>. Called from file scope, because it enables the language; users of the CPU never need the toolkit.
#
# CMAKE_CUDA_ARCHITECTURES says what is compiled for; by default machine code for sm_80, sm_90 and sm_100, and PTX for
# what comes later. CMake's own default is nvcc's oldest.
macro(atmanrl_use_cuda)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)
  endif()
  # Without this CMake links cudart_static beside the shared runtime: two runtimes in one program.
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  enable_language(CUDA)
  find_package(CUDAToolkit 12 REQUIRED)
  foreach(atmanrl_target ${ARGN})
    # A target that was made before the variable above was set does not have it.
    get_target_property(atmanrl_architectures ${atmanrl_target} CUDA_ARCHITECTURES)
    if(NOT atmanrl_architectures)
      set_target_properties(${atmanrl_target} PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
    endif()
    target_link_libraries(${atmanrl_target} PRIVATE CUDA::cudart CUDA::cublas)
    # CMake 3.25.1 does not know that nvcc has C++20; 554 warns of a view's conversion to const, which a view of const
    # does not have because of its requires-clause.
    target_compile_options(${atmanrl_target} PRIVATE
      "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-std=c++20 --expt-relaxed-constexpr -diag-suppress=554>")
    # fmt 9 drops its constexpr under nvcc but keeps its callers. Eigen would turn its vectorisation off, and clash with
    # the units that g++ compiled.
    target_compile_definitions(${atmanrl_target} PRIVATE
      $<$<COMPILE_LANGUAGE:CUDA>:FMT_USE_CONSTEXPR=1> $<$<COMPILE_LANGUAGE:CUDA>:EIGEN_NO_CUDA>)
  endforeach()
endmacro()

# Sets ATMANRL_NVCC to the compiler that this repository's own CUDA programs are compiled with, or to nothing, as
# ATMANRL_CUDA (ON, OFF, auto) asks.
macro(atmanrl_find_nvcc)
  set(ATMANRL_NVCC "")
  if(NOT ATMANRL_CUDA STREQUAL "OFF")
    find_program(ATMANRL_NVCC_PROGRAM nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
    if(ATMANRL_NVCC_PROGRAM)
      set(ATMANRL_NVCC "${ATMANRL_NVCC_PROGRAM}")
      if(NOT CMAKE_CUDA_COMPILER)
        set(CMAKE_CUDA_COMPILER "${ATMANRL_NVCC_PROGRAM}")
      endif()
      # The device that is there, or one architecture to see that it compiles; tests/cuda/nvcc compiles for all.
      if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND EXISTS /dev/nvidia0)
        set(CMAKE_CUDA_ARCHITECTURES native)
      elseif(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        set(CMAKE_CUDA_ARCHITECTURES 90)
      endif()
    elseif(NOT ATMANRL_CUDA STREQUAL "auto")
      message(FATAL_ERROR "ATMANRL_CUDA is ${ATMANRL_CUDA}, but there is no nvcc")
    endif()
  endif()
endmacro()
