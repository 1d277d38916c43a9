#!/usr/bin/env bash
# Installs the packages that atmanrl needs (Debian, Ubuntu); does nothing where they are there. Asks for nothing.
# ATMANRL_SKIP_INSTALL=1 says that the machine is ready and must be left alone. With the argument `tests` also what
# only tests need: Open MPI, clang with libFuzzer, Doxygen; tests of theirs are skipped without them.
set -euo pipefail

packages=(g++ cmake ninja-build make git ca-certificates libeigen3-dev libfmt-dev catch2 libbenchmark-dev
          nlohmann-json3-dev libpcre2-dev libutf8proc-dev libxxhash-dev libcli11-dev ccache python3)
[ "${1:-}" != tests ] || packages+=(libopenmpi-dev openmpi-bin clang doxygen python3-venv)

[ "${ATMANRL_SKIP_INSTALL:-0}" != 1 ] || exit 0

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
  cat >&2 <<'TXT'
This system has no apt. Please install: a C++20 compiler (g++ 12 or clang 14 and later), CMake 3.24 or later,
Ninja, Python 3, Eigen 3.4, fmt 9 or later, nlohmann-json 3.10 or later, PCRE2 (8-bit), utf8proc 2,
libxxhash 0.8, CLI11 2, Catch2, Google Benchmark; for its tests perhaps Open MPI or MPICH, clang with libFuzzer,
Doxygen;
then run the same command again with ATMANRL_SKIP_INSTALL=1 before it.
TXT
  exit 2
fi

# Sanitizers and libFuzzer are a package of their own where clang's does not bring them.
if [ "${1:-}" = tests ] && ! ls /usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.fuzzer* >/dev/null 2>&1; then
  packages+=(libclang-rt-dev)
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg -s "$package" 2>/dev/null | sed -n 's/^Status: //p' || true)
  [ "$state" = "install ok installed" ] || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "Not root and no sudo: please have these packages installed: ${missing[*]}" >&2
      exit 2
    fi
    as_root=(sudo)
  fi
  echo "Installing: ${missing[*]}" >&2
  apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120)
  # A package list that cannot be refreshed (somebody's broken extra source) does not matter if the install succeeds.
  "${apt[@]}" update >&2 || echo "apt-get update failed; trying with the lists that are there" >&2
  known=()
  for package in "${missing[@]}"; do
    [ "$package" = libclang-rt-dev ] && ! apt-cache show "$package" >/dev/null 2>&1 || known+=("$package")
  done
  missing=("${known[@]}")
  if ! "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2; then
    echo "apt could not install: ${missing[*]} (see above); install them, then run the same command again" >&2
    exit 2
  fi
fi

version=$(cmake --version | sed -n '1s/^cmake version //p')
if [ "$(printf '%s\n' 3.24 "$version" | sort -V | head -n 1)" != 3.24 ]; then
  echo "CMake $version is too old, 3.24 is needed: install a newer one (for example: pip install cmake)" >&2
  exit 2
fi
