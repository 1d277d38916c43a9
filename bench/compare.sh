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

mkdir -p "$folder"
if [ "$(cat "$folder/installed" 2>/dev/null)" != "${packages[*]}" ]; then
  echo "compare: installing into $venv, log $folder/install.log: ${packages[*]}" >&2
  rm -f "$folder/installed"
  # Only the library of llama.cpp is needed, not its image models.
  if ! { python3 -m venv "$venv" &&
         CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" CMAKE_BUILD_PARALLEL_LEVEL="$jobs" \
           "$venv/bin/pip" install --no-binary llama-cpp-python "${packages[@]}"; } >"$folder/install.log" 2>&1; then
    echo "compare: the packages cannot be had; the first run needs the network, a C++ compiler and python3-venv:" \
         "$folder/install.log says what failed" >&2
    exit 1
  fi
  echo "${packages[*]}" >"$folder/installed"
fi

cmake --preset release >"$folder/build.log"
cmake --build --preset release --target compare_atmanrl --parallel "$jobs" >>"$folder/build.log"
exec "$venv/bin/python" bench/compare/compare.py "$@"
