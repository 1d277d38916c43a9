#!/usr/bin/env bash
# long.sh BUILD FOLDER [MINUTES [SECONDS]]: the long run. Builds the program for it, then runs the targets in turn, each
# for so many seconds (60), again and again until so many minutes (130) are over, with the corpora that earlier runs left
# in FOLDER, and adds to the counts in FOLDER/inputs.tsv. May be stopped and begun again. The sums are printed at the
# end: what docs/reliability.md quotes.
set -euo pipefail
build=$1 folder=$2 minutes=${3:-130} seconds=${4:-60}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -d "$build" ]; then
  cmake --build "$build" --target fuzz_fast
  program=$(cd "$build" && pwd)/tests/fuzz/fuzz_fast
else
  program=$(realpath "$build")  # already built
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$folder"
end=$(($(date +%s) + 60 * minutes))
while [ "$(date +%s)" -lt "$end" ]; do
  for target in $("$program" --list); do
    left=$((end - $(date +%s)))
    [ "$left" -gt 0 ] || break
    nice -n 10 bash "$here/run.sh" "$program" "$target" $((left < seconds ? left : seconds)) "$folder/$target" \
         "$folder/inputs.tsv"
  done
done
awk -F '\t' '{ n[$2] += $3; s[$2] += $4; all += $3 }
             END { for (t in n) printf "| `%s` | %d | %d |\n", t, n[t], s[t] | "sort"; close("sort"); print "all: " all }' inputs.tsv
