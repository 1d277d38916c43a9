#!/usr/bin/env bash
# long.sh BUILD FOLDER [SECONDS]: the long run. Builds the program for it, then runs each target in turn for so many
# seconds (600), with the corpora that earlier runs left in FOLDER, and adds to the counts in FOLDER/inputs.tsv. May be
# stopped and begun again. The sums are printed at the end: what docs/reliability.md quotes.
set -euo pipefail
build=$1 folder=$2 seconds=${3:-600}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cmake --build "$build" --target fuzz_fast
program=$(cd "$build" && pwd)/tests/fuzz/fuzz_fast
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$folder"
for target in $("$program" --list); do
  nice -n 10 bash "$here/run.sh" "$program" "$target" "$seconds" "$folder/$target" "$folder/inputs.tsv"
done
awk -F '\t' '{ n[$2] += $3; s[$2] += $4; all += $3 }
             END { for (t in n) printf "| `%s` | %d | %d |\n", t, n[t], s[t] | "sort"; close("sort"); print "all: " all }' inputs.tsv
