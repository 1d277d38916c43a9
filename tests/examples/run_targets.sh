#!/usr/bin/env bash
# What examples/run.sh has built: the experiment, and what nvcc compiles only when --backend cuda asks for it. A cmake of
# our own notes down its arguments and then fails, so that nothing is built and nothing runs.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/cmake" <<'TXT'
#!/bin/sh
[ "$1" = --build ] || exit 0
echo "$*" | sed 's/.*--target //' >"$(dirname "$0")/targets"
exit 3
TXT
chmod +x "$folder/cmake"

wrong=0
expect() {
  local targets=$1 status=0
  shift
  rm -f "$folder/targets"
  PATH=$folder:$PATH ATMANRL_SKIP_INSTALL=1 bash "$root/examples/run.sh" "$@" >/dev/null 2>&1 || status=$?
  if [ $status != 3 ] || [ "$(cat "$folder/targets")" != "$targets" ]; then
    echo "examples/run.sh $*: built \"$(cat "$folder/targets")\" (status $status), not \"$targets\""
    wrong=1
  fi
}
expect "gsm8k_experiment"
expect "gsm8k_experiment" --steps 2 --backend cpu
expect "gsm8k_experiment atmanrl_on_cuda" --backend cuda
expect "gsm8k_experiment atmanrl_on_cuda" --backend=cuda --steps 2
expect "gsm8k_experiment" --backend cuda --backend cpu
exit $wrong
