#!/usr/bin/env bash
# run.sh PROGRAM TARGET SECONDS [CORPUS [COUNTS]]: the target's seeds, large inputs of repeated pieces, then so many
# seconds of libFuzzer. An input that breaks a promise is left as fuzz-TARGET-... in the current folder. With a folder
# CORPUS the inputs that reach new code are kept there for the next run, and the large inputs are left to the tests; to
# a file COUNTS a line is added with the day, the target, the number of inputs and the seconds.
set -euo pipefail
program=$1 target=$2 seconds=$3 corpus=${4:-} counts=${5:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

memory=/dev/shm
[ -w "$memory" ] || memory=${TMPDIR:-/tmp}
work=$(mktemp -d "$memory/atmanrl-fuzz-XXXXXX")
trap 'rm -rf "$work"' EXIT
export ATMANRL_FUZZ_SCRATCH=$work
mkdir "$work/found"

"$program" "$target" --seeds "$work/seeds"
[ -n "$corpus" ] || "$program" "$target" --repeat 10
longest=1024  # short inputs are many inputs
case $target in gguf | jsonl | llama2c | peft) longest=4096 ;; esac  # whose whole seeds are longer
options=(-max_total_time="$seconds" -timeout=20 -entropic=0 -max_len="$longest" -print_final_stats=1 -reload=0
         -artifact_prefix="fuzz-$target-")
[ ! -e "$here/dictionaries/$target.dict" ] || options+=(-dict="$here/dictionaries/$target.dict")
[ -z "$corpus" ] || mkdir -p "$corpus"
# Freed memory is watched for a shorter while, and the stacks of allocations are not kept: both cost a quarter of the
# time, and the input that is left tells more when it is run again.
[ -z "$corpus" ] || export ASAN_OPTIONS=malloc_context_size=0:quarantine_size_mb=4:max_malloc_fill_size=0
begin=$(date +%s)
status=0
"$program" "$target" "${options[@]}" "${corpus:-$work/found}" "$work/seeds" >"$work/log" 2>&1 || status=$?
if [ "$status" != 0 ]; then
  grep -av '^#' "$work/log" | tail -n 60
  exit "$status"
fi
# Files that the program began with were inputs of earlier runs.
read_first=$(sed -n 's/^#\([0-9]*\)\tINITED.*/\1/p' "$work/log")
inputs=$(($(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log") - ${read_first:-0}))
echo "$target: $inputs inputs in $(($(date +%s) - begin)) s"
[ -z "$counts" ] ||
  printf '%s\t%s\t%s\t%s\n' "$(date +%F)" "$target" "$inputs" "$(($(date +%s) - begin))" >>"$counts"
