#!/usr/bin/env bash
# Prints the folder that holds GSM8K's train.jsonl and test.jsonl: $ATMANRL_DATA_DIR/gsm8k, else data/gsm8k, which is
# filled from the authors' published address if need be.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
address=https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data
declare -A sha256=(
  [train]=17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465
  [test]=3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14
)

matches() { [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$2" ]; }

given=${ATMANRL_DATA_DIR:+$ATMANRL_DATA_DIR/gsm8k}
if [ -n "$given" ] && [ -f "$given/train.jsonl" ] && [ -f "$given/test.jsonl" ]; then
  for part in train test; do
    matches "$given/$part.jsonl" "${sha256[$part]}" ||
      echo "note: $given/$part.jsonl is not the published file (its sha256 differs)" >&2
  done
  (cd "$given" && pwd)
  exit 0
fi

folder=$root/data/gsm8k
give_up() {
  echo "GSM8K could not be had ($1); the offline run needs no download: bash examples/run.sh" >&2
  exit 2
}
mkdir -p "$folder"
for part in train test; do
  file=$folder/$part.jsonl
  if [ -f "$file" ] && matches "$file" "${sha256[$part]}"; then continue; fi
  new=$(mktemp "$folder/.fetch.XXXXXX")
  trap 'rm -f "$new"' EXIT
  echo "Downloading $address/$part.jsonl" >&2
  # Python is among the installed packages; curl and wget need not be there.
  why=$(python3 - "$address/$part.jsonl" "$new" 2>&1 <<'PY'
import shutil, sys, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=60) as answer, open(sys.argv[2], "wb") as file:
        shutil.copyfileobj(answer, file)
except (OSError, ValueError) as problem:
    sys.exit(" ".join(str(problem).split()))
PY
  ) || give_up "$address/$part.jsonl: $why"
  matches "$new" "${sha256[$part]}" || give_up "$address/$part.jsonl does not have the expected sha256"
  chmod 644 "$new"
  mv "$new" "$file"
done
echo "$folder"
