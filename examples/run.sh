#!/usr/bin/env bash
# Installs what is needed, builds, and runs gsm8k_experiment: offline, with the bundled tiny model and generated problems.
#   bash examples/run.sh --model smollm2 --task gsm8k    the same with SmolLM2-135M-Instruct and the real GSM8K
# Every other option goes to the program as it is (--help lists them). Results are in runs/, or where --out says.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

value_of() {
  [ $# -ge 2 ] && [ -n "$2" ] || { echo "$1 needs a value" >&2; exit 2; }
}

arguments=() model= task= backend=cpu has_data= has_out= has_resume= has_preset=
while [ $# -gt 0 ]; do
  case $1 in
    --model=* | --task=* | --backend=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
  esac
  case $1 in
    --model) value_of "$@"; model=$2; shift 2 ;;
    --task) value_of "$@"; task=$2; shift 2 ;;
    --backend) value_of "$@"; backend=$2; arguments+=("$1" "$2"); shift 2 ;;
    --data | --data=*) has_data=1; arguments+=("$1"); shift ;;
    --out | --out=*) has_out=1; arguments+=("$1"); shift ;;
    --resume | --resume=*) has_resume=1; arguments+=("$1"); shift ;;
    --preset | --preset=*) has_preset=1; arguments+=("$1"); shift ;;
    *) arguments+=("$1"); shift ;;
  esac
done

# What nvcc compiles takes minutes: only where a device is (examples/CMakeLists.txt) or where it is asked for.
targets=(gsm8k_experiment)
[ "$backend" != cuda ] || targets+=(atmanrl_on_cuda)

# Standard output belongs to the experiment.
bash "$root/cmake/install_dependencies.sh" >&2
(cd "$root" && cmake --preset release && cmake --build --preset release --parallel "$(nproc)" --target "${targets[@]}") >&2

program=$root/build/release/examples/gsm8k_experiment

[ -z "$task" ] || arguments+=(--task "$task")
defaults=()
# What 20 minutes on two cores allow for 135 million parameters; options that are given come later and win.
if [ "$model" = smollm2 ] && [ "$task" = gsm8k ] && [ -z "$has_preset" ]; then
  defaults=(--few-shot 3 --no-delimiter force --steps 4 --prompts-per-step 2 --group-size 8 --max-new-tokens 160 --lr 5e-6
            --lr-warmup 0 --eval-questions 16 --eval-samples 2)
fi

[ "$model" != smollm2 ] || model=$(bash "$root/cmake/fetch_smollm2.sh")
# A continued run knows its options.
if [ -n "$has_resume" ]; then
  [ -z "$model" ] || arguments+=(--model "$model")
  exec "$program" "${arguments[@]}"
fi

[ -n "$model" ] || model=$root/examples/models/tiny
if [ "$task" = gsm8k ] && [ -z "$has_data" ]; then
  data=$(bash "$root/cmake/fetch_gsm8k.sh")
  arguments+=(--data "$data")
fi
[ -n "$has_out" ] || arguments+=(--out "$root/runs/$(date +%Y%m%d-%H%M%S)")

exec "$program" --model "$model" ${defaults[@]+"${defaults[@]}"} "${arguments[@]}"
