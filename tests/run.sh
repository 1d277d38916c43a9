#!/usr/bin/env bash
# Installs what is needed, builds everything and runs every test. Tests that need the data folder (ATMANRL_DATA_DIR) are
# skipped and counted without it. Arguments go to ctest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The tests run in other folders.
if [ -n "${ATMANRL_DATA_DIR:-}" ] && [ -d "$ATMANRL_DATA_DIR" ]; then
  ATMANRL_DATA_DIR=$(cd "$ATMANRL_DATA_DIR" && pwd)
  export ATMANRL_DATA_DIR
fi
bash cmake/install_dependencies.sh tests arm
cmake --preset release
cmake --build --preset release --parallel "$(nproc)"
# The tests write thousands of small files, many of them damaged ones: into memory, where the system has a folder there
# with enough room in which programs may run.
memory=$(mktemp -d -p /dev/shm atmanrl-tests.XXXXXX 2>/dev/null) || memory=
if [ -n "$memory" ]; then
  trap 'rm -rf "$memory"' EXIT
  install -m 755 /dev/null "$memory/empty"
  if [ "$(df --output=avail -k "$memory" | tail -n 1)" -gt 4194304 ] && "$memory/empty" 2>/dev/null; then
    export TMPDIR=$memory
  fi
fi
ctest --test-dir build/release --output-on-failure -j2 "$@"
