#!/usr/bin/env python3
"""Runs what there is to be measured on a GPU, in order of value, and writes one page of it beside the predictions.

    python3 bench/on_a_gpu.py --build build/release [--minutes 8] [--out build/on_a_gpu] [STAGE...]
    python3 bench/on_a_gpu.py --list

A stage gets the seconds that it may take at most, or what is left; one that nothing is left for is named as not run.
Its output is FOLDER/STAGE.txt, the page FOLDER/page.md, written again after each stage. Exit status: 0 where every
stage that ran ended well, 1 where one failed, 2 for a stage that there is not, 77 without a device.
"""
import argparse
import datetime
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field

NO_DEVICE = 77


@dataclass
class Stage:
    name: str
    most: int  # seconds
    what: str
    command: list
    environment: dict = field(default_factory=dict)


def stages(build, out):
    phases = [str(build / "bench" / "phases_cuda"), "16"]
    return [
        Stage("phases", 150, "prefill, decoding, mask steps, update; bf16 weights, CUDA graphs", phases),
        Stage("skinny", 60, "decoding with cuBLAS' products and with those of few rows", [*phases, "decoding", "skinny"]),
        Stage("tests", 180, "all tests of the CUDA backend", [str(build / "tests" / "cuda" / "gpu" / "cuda_gpu_test")]),
        Stage("kernels", 60, "which kernels a mask step with all_later is made of", [*phases, "all_later"],
              {"CUDA_INJECTION64_PATH": str((build / "bench" / "libkernel_times.so").resolve()),
               "KERNEL_TIMES": str((out / "kernel_times.txt").resolve())}),
        Stage("eager", 60, "the same without graphs, where launches count", [*phases, "eager", "decoding", "answer_rows"]),
        Stage("torch", 150, "the same work in PyTorch and transformers",
              [sys.executable, str(pathlib.Path(__file__).with_name("phases_torch.py")), "16"]),
    ]


# Of docs/cuda.md, for an H200 and the shape of phases_cuda with 16 layers: what was measured before, and what is
# expected now. Seconds. 20 mask steps: 20 times a step's 3 to 3.5 ms (answer_rows) and 16 ms of products, 4 to 8 of
# attention, 4.4 of passes (all_later), and 27 ms that are not steps.
EXPECTED = {
    "decoding, 8 rollouts": ("0.67 to 0.79", "0.44 to 0.56"),
    "20 mask steps, all_later": ("1.23 to 1.40", "0.51 to 0.60"),
    "20 mask steps, answer_rows": ("0.14 to 0.15", "0.087 to 0.097"),
    "update of adapters, rank 16": ("0.089 to 0.108", ""),
}
PHASE = re.compile(r"^(?P<phase>\S.*?)\s+(?P<seconds>\d+\.\d+) s\s+(?P<rate>\d+) tokens/s"
                   r"(?:\s+(?P<share>[\d.]+) % of the floor of (?P<floor>[\d.]+) s)?\s*$")


def phases_of(text):
    return [m.groupdict() for m in map(PHASE.match, text.splitlines()) if m]


def phase_table(stage, text):
    """Predictions are for graphs and cuBLAS' products: the other stages' lines stand without them."""
    expected = EXPECTED if stage.name == "phases" else {}
    rows = phases_of(text)
    if not rows:
        return ""
    lines = ["| phase | s | floor, s | share of it | measured before, H200 | predicted, H200 |", "|---|---|---|---|---|---|"]
    for row in rows:
        before, now = expected.get(row["phase"], ("", ""))
        share = f"{row['share']} %" if row["share"] else ""
        lines.append(f"| {row['phase']} | {row['seconds']} | {row['floor'] or ''} | {share} | {before} | {now} |")
    return "\n".join(lines) + "\n"


def page(done, device):
    """done: of each stage (stage, how it ended, seconds, output)."""
    text = f"# Measured on {device}, {datetime.date.today()}\n"
    for stage, ended, seconds, output in done:
        text += f"\n## {stage.name}: {stage.what}\n\n"
        text += f"{ended}, {seconds:.0f} s.\n" if seconds else f"{ended}.\n"
        if ended == "not run":
            continue
        table = phase_table(stage, output)
        rest = "\n".join(line for line in output.splitlines() if not PHASE.match(line))
        text += (f"\n{table}" if table else "") + f"\n```\n{tail(rest)}\n```\n"
    return text


def tail(text, lines=40):
    return "\n".join(text.strip().splitlines()[-lines:])


def run(stage, seconds):
    """How it ended, and what it printed."""
    try:
        ran = subprocess.run(stage.command, env={**os.environ, **stage.environment}, timeout=seconds, text=True,
                             errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
        return f"stopped after {seconds:.0f} s", output.decode(errors="replace") if isinstance(output, bytes) else output
    except OSError as error:
        return "failed", f"{stage.command[0]}: {error.strerror}"
    if ran.returncode == NO_DEVICE:
        return "no device", ran.stdout
    return "ended well" if ran.returncode == 0 else "failed", ran.stdout


def device_name():
    try:
        return subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.strip().splitlines()[0]
    except (OSError, IndexError):
        return "a device that nvidia-smi does not name"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build/release"))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/on_a_gpu"))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("stages", nargs="*")
    asked = parser.parse_args(arguments)
    every = stages(asked.build, asked.out)
    if asked.list:
        for stage in every:
            print(f"{stage.name:<8} {stage.most:>4} s  {stage.what}")
        return 0
    for name in asked.stages:
        if name not in [stage.name for stage in every]:
            print(f"on_a_gpu: stage {name!r}, but there are {', '.join(s.name for s in every)}", file=sys.stderr)
            return 2
    chosen = [stage for stage in every if not asked.stages or stage.name in asked.stages]

    asked.out.mkdir(parents=True, exist_ok=True)
    device = device_name()
    end = time.monotonic() + 60 * asked.minutes
    done = []
    for stage in chosen:
        left = end - time.monotonic()
        if stage.name == "torch" and importlib.util.find_spec("transformers") is None:
            done.append((stage, "not run", 0, ""))
            print("torch: not run, transformers is not installed", flush=True)
        elif left < 5:
            done.append((stage, "not run", 0, ""))
            print(f"{stage.name}: not run, the {asked.minutes:g} minutes are over", flush=True)
        else:
            begin = time.monotonic()
            ended, output = run(stage, min(stage.most, left))
            # Once a stage ended well there is one: the status is then a failure like others.
            if ended == "no device" and any(before == "ended well" for _, before, _, _ in done):
                ended = "failed"
            if ended == "no device":
                print("on_a_gpu: there is no CUDA device; the programs are built", file=sys.stderr)
                return NO_DEVICE
            (asked.out / f"{stage.name}.txt").write_text(output)
            done.append((stage, ended, time.monotonic() - begin, output))
            print(f"{stage.name}: {ended}, {done[-1][2]:.0f} s\n{phase_table(stage, output) or tail(output, 5)}", flush=True)
        (asked.out / "page.md").write_text(page(done, device))
    return 1 if any(ended not in ("ended well", "not run") for _, ended, _, _ in done) else 0


if __name__ == "__main__":
    sys.exit(main())
