#!/usr/bin/env bash
# What there is to be measured on a GPU, in order of value, within 8 minutes once it is built: on_a_gpu.py --list names
# the stages. Without a device it builds and stops there, so that time on a device is not spent on compiling: build
# here with ATMANRL_ARCHITECTURES=90 (or 80, 86, 100, 120; 90 by default), and take build/release along.
#   bash bench/on_a_gpu.sh [--minutes 8] [--out FOLDER] [STAGE...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=build/release
architectures=${ATMANRL_ARCHITECTURES:-$([ -e /dev/nvidia0 ] && echo native || echo 90)}
missing=()
# The library that times kernels is there where CUPTI was; without it its stage fails alone.
for program in bench/phases_cuda tests/cuda/gpu/cuda_gpu_test; do
  [ -e "$build/$program" ] || missing+=("$program")
done
# Where programs were brought along, there may be no compiler.
if [ ${#missing[@]} != 0 ] || command -v nvcc >/dev/null; then
  cmake --preset release -DATMANRL_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$architectures" >/dev/null
  targets=(phases_cuda cuda_gpu_test)
  # Not grep -q, which leaves before cmake has written all and so ends it.
  if cmake --build --preset release --target help | grep kernel_times >/dev/null; then targets+=(kernel_times); fi
  cmake --build --preset release --target "${targets[@]}" --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
fi
exec python3 bench/on_a_gpu.py --build "$build" "$@"
