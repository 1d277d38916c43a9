#!/usr/bin/env python3
"""What a program of several levels costs beside one that is compiled for this processor (docs/processors.md): runs
both and each lower level in turn, some rounds, and prints medians of the ratios within a round.

    cmake --build build/release --target level_times level_times_native
    python3 bench/levels.py [--build build/release] [--rounds 5] [--runs 5]
"""

import argparse
import os
import statistics
import subprocess
from pathlib import Path


def run(program: Path, runs: int, level: str | None) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k != "ATMANRL_CPU"}
    if level:
        environment["ATMANRL_CPU"] = level
    done = subprocess.run([program, str(runs)], env=environment, check=True, capture_output=True, text=True)
    return {name: float(value) for name, value in (line.rsplit(": ", 1) for line in done.stdout.splitlines())}


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
        refused = subprocess.run([program, "0"], env={**os.environ, "ATMANRL_CPU": level}, capture_output=True)
        levels += [level] if refused.returncode == 0 else []
    times: dict[str, list[dict[str, float]]] = {"native": []} | {level or "chosen": [] for level in levels}
    for number in range(given.rounds):
        cases = [(native, None, "native")] + [(program, level, level or "chosen") for level in levels]
        for path, level, name in cases[number % len(cases) :] + cases[: number % len(cases)]:
            times[name].append(run(path, given.runs, level))
    print("| | " + " | ".join(times) + " |")
    print("|---" * (len(times) + 1) + "|")
    for what in times["native"][0]:
        ratios = [
            statistics.median(one[what] / all_native[what] for one, all_native in zip(values, times["native"]))
            for values in times.values()
        ]
        print(f"| {what} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")


if __name__ == "__main__":
    main()
