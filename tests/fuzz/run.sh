#!/usr/bin/env bash
# run.sh PROGRAM TARGET SECONDS [CORPUS [COUNTS]]: the target's seeds, large inputs of repeated pieces, then so many
# seconds of libFuzzer. An input that breaks a promise is left as fuzz-TARGET-... in the current folder. With a folder
# CORPUS the inputs that reach new code are kept there for the next run; to a file COUNTS a line is added with the day,
# the target, the number of inputs and the seconds.
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
"$program" "$target" --repeat 10
longest=1024  # short inputs are many inputs
case $target in gguf | jsonl | llama2c | peft) longest=4096 ;; esac  # whose whole seeds are longer
options=(-max_total_time="$seconds" -timeout=20 -entropic=0 -max_len="$longest" -print_final_stats=1
         -artifact_prefix="fuzz-$target-")
[ ! -e "$here/dictionaries/$target.dict" ] || options+=(-dict="$here/dictionaries/$target.dict")
[ -z "$corpus" ] || mkdir -p "$corpus"
begin=$(date +%s)
status=0
"$program" "$target" "${options[@]}" "${corpus:-$work/found}" "$work/seeds" >"$work/log" 2>&1 || status=$?
inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
if [ "$status" != 0 ]; then
  grep -v '^#' "$work/log" | tail -n 60
  exit "$status"
fi
echo "$target: $inputs inputs in $(($(date +%s) - begin)) s"
[ -z "$counts" ] ||
  printf '%s\t%s\t%s\t%s\n' "$(date +%F)" "$target" "$inputs" "$(($(date +%s) - begin))" >>"$counts"
