#!/usr/bin/env bash
# atmanrl beside llama.cpp (llama-cpp-python) and PyTorch + transformers: the same weights, tokens and two threads, in
# interleaved rounds; the outputs must agree before the clock runs. Prints median ratios; --help lists the options.
# The first run installs the packages from PyPI into build/compare/venv (about 6 GB, llama.cpp is compiled for this
# processor) and needs the network; later ones do not. See docs/performance.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=build/compare
venv=$folder/venv
jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
packages=(llama-cpp-python==0.3.36 torch==2.15.0 transformers==5.24.0 gguf==0.19.0 numpy==2.4.6)

# A numpy that was told to act for another processor would slow the comparison's other side.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

# llama.cpp's code for AMX ends with a general protection fault where g++ 12 compiles it: the configuration of the tiles
# is optimised away (llama.cpp, pull request 26954). What clang makes of it runs.
compiler=c++ c_compiler=cc
if grep -qs amx_int8 /proc/cpuinfo; then
  compiler=$(command -v clang++-16 clang++-15 clang++-14 clang++ | head -n 1 | xargs -r basename || true)
  if [ -z "$compiler" ]; then
    echo "compare: this processor has AMX, for which llama.cpp needs clang (apt-get install clang-16 libomp-16-dev)" >&2
    exit 1
  fi
  c_compiler=${compiler/++/}
fi

mkdir -p "$folder"
if [ "$(cat "$folder/installed" 2>/dev/null)" != "${packages[*]} $compiler" ]; then
  echo "compare: installing into $venv, log $folder/install.log: ${packages[*]}, llama.cpp compiled by $compiler" >&2
  rm -f "$folder/installed"
  # Only the library of llama.cpp is needed, not its image models.
  if ! { python3 -m venv --clear "$venv" &&
         CXX=$compiler CC=$c_compiler \
           CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" CMAKE_BUILD_PARALLEL_LEVEL="$jobs" \
           "$venv/bin/pip" install --no-cache-dir --no-binary llama-cpp-python "${packages[@]}"; } \
       >"$folder/install.log" 2>&1; then
    echo "compare: the packages cannot be had; the first run needs the network, a C++ compiler and python3-venv:" \
         "$folder/install.log says what failed" >&2
    exit 1
  fi
  echo "${packages[*]} $compiler" >"$folder/installed"
  "$compiler" --version | head -n 1 >"$folder/llama_compiler"
fi

cmake --preset release >"$folder/build.log"
cmake --build --preset release --target compare_atmanrl --parallel "$jobs" >>"$folder/build.log"
exec "$venv/bin/python" bench/compare/compare.py "$@"
