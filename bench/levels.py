#!/usr/bin/env python3
"""What a program of several levels costs beside one that is compiled for this processor (docs/processors.md): runs
both and each lower level in turn, some rounds, with one thread, and prints medians of the ratios within a round. The
last line is that of processor seconds, which other programs on the machine disturb least.

    cmake --build build/release --target level_times level_times_native
    python3 bench/levels.py [--build build/release] [--rounds 5] [--runs 5]
"""

import argparse
import os
import resource
import statistics
import subprocess
from pathlib import Path


def processor_seconds(program: Path, runs: int, environment: dict[str, str]) -> tuple[float, str]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([program, str(runs)], env=environment, check=True, capture_output=True, text=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, done.stdout


def run(program: Path, runs: int, level: str | None) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k != "ATMANRL_CPU"} | {"OMP_NUM_THREADS": "1"}
    if level:
        environment["ATMANRL_CPU"] = level
    start, _ = processor_seconds(program, 0, environment)
    all_of_it, text = processor_seconds(program, runs, environment)
    times = {name: float(value) for name, value in (line.rsplit(": ", 1) for line in text.splitlines())}
    return times | {"processor seconds of all": all_of_it - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path(__file__).resolve().parent.parent / "build" / "release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    folder = given.build / "bench"
    native, program = folder / "level_times_native", folder / "bin" / "level_times"
    levels = [None]
    for level in ("avx512_bf16", "avx512", "avx2", "plain"):
        tried = subprocess.run([program, "0"], env={**os.environ, "ATMANRL_CPU": level}, capture_output=True)
        levels += [level] if tried.returncode == 0 else []
    times: dict[str, list[dict[str, float]]] = {"native": []} | {level or "chosen": [] for level in levels}
    for number in range(given.rounds):
        cases = [(native, None, "native")] + [(program, level, level or "chosen") for level in levels]
        turn = number % len(cases)
        for path, level, name in cases[turn:] + cases[:turn]:
            times[name].append(run(path, given.runs, level))
    print("| seconds, of native | " + " | ".join(times) + " |")
    print("|---" * (len(times) + 1) + "|")
    for what in times["native"][0]:
        ratios = [
            statistics.median(one[what] / all_native[what] for one, all_native in zip(values, times["native"]))
            for values in times.values()
        ]
        print(f"| {what} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")


if __name__ == "__main__":
    main()
