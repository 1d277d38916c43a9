#!/usr/bin/env bash
# Installs what is needed, builds, and runs gsm8k_experiment: offline, with the bundled tiny model and generated problems.
#   bash examples/run.sh --model smollm2 --task gsm8k    the same with SmolLM2-135M-Instruct and the real GSM8K
# Every other option goes to the program as it is (--help lists them). Results are in runs/, or where --out says.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

value_of() {
  [ $# -ge 2 ] && [ -n "$2" ] || { echo "$1 needs a value" >&2; exit 2; }
}

arguments=() model= task= has_data= has_out=
while [ $# -gt 0 ]; do
  case $1 in
    --model=* | --task=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
  esac
  case $1 in
    --model) value_of "$@"; model=$2; shift 2 ;;
    --task) value_of "$@"; task=$2; shift 2 ;;
    --data | --data=*) has_data=1; arguments+=("$1"); shift ;;
    --out | --out=* | --resume | --resume=*) has_out=1; arguments+=("$1"); shift ;;
    *) arguments+=("$1"); shift ;;
  esac
done

# Standard output belongs to the experiment.
bash "$root/cmake/install_dependencies.sh" >&2
(cd "$root" && cmake --preset release && cmake --build --preset release --target gsm8k_experiment) >&2

case $model in
  "") model=$root/examples/models/tiny ;;
  smollm2) model=$(bash "$root/cmake/fetch_smollm2.sh") ;;
esac
if [ "$task" = gsm8k ] && [ -z "$has_data" ]; then
  data=$(bash "$root/cmake/fetch_gsm8k.sh")
  arguments+=(--data "$data")
fi
[ -n "$has_out" ] || arguments+=(--out "$root/runs/$(date +%Y%m%d-%H%M%S)")
[ -z "$task" ] || arguments+=(--task "$task")

exec "$root/build/release/examples/gsm8k_experiment" --model "$model" "${arguments[@]}"
