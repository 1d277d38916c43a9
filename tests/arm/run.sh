#!/bin/sh
# Compiles the tests of cpu/ for 64-bit Arm and runs them in qemu-user:  run.sh BUILD_FOLDER [option of cmake ...]
# Left out is what takes the emulator longest and is tested beside it: the software twin of AMX, in which nothing is
# Arm's, drawing of tokens, and single kernels with several numbers of threads, which whole models are run with.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$1
shift
skip() {
  echo "$1: skipped"
  exit 77
}
[ "$(uname -m)" != aarch64 ] || skip "this is such a processor: the other tests are these"
command -v aarch64-linux-gnu-g++ >/dev/null || skip "no aarch64-linux-gnu-g++ (cmake/install_dependencies.sh arm)"
command -v qemu-aarch64 >/dev/null || skip "no qemu-aarch64 (cmake/install_dependencies.sh arm)"
[ -f /usr/include/catch2/catch.hpp ] || skip "no headers of Catch2 2, and a library of Catch2 3 is not there for Arm"
cmake -S "$here" -B "$build" -G Ninja "-DCMAKE_TOOLCHAIN_FILE=$here/../../cmake/toolchains/aarch64-linux-gnu.cmake" "$@"
cmake --build "$build" --parallel 2
qemu-aarch64 -cpu max "$build/cpu_arm_test" '~amx*' '~cpu sample_tokens*' '~*same bits for any number of threads*'
