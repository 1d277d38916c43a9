#!/usr/bin/env python3
"""Do two processes on the same cores fight? Tokens per second of one process with a thread for each core, of two such
processes at once, and of two processes with half the threads each: the sum of both, beside the one.

    python3 bench/two_processes.py [--build build/release] [--rounds 3] [--filter 'decode f32/8']
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path


def run(program: Path, chosen: str, threads: list[int]) -> float:
    """The sum of the processes' tokens per second, one process for each number of threads, all at once."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / f"{i}.json" for i in range(len(threads))]
        processes = [
            subprocess.Popen(
                [program, f"--benchmark_filter=^{chosen}/", "--benchmark_min_time=5", f"--benchmark_out={out}"],
                env={**os.environ, "OMP_NUM_THREADS": str(count)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for count, out in zip(threads, outputs)
        ]
        if any(p.wait() != 0 for p in processes):
            raise SystemExit(f"{program} failed")
        return sum(json.loads(out.read_text())["benchmarks"][0]["tokens/s"] for out in outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path(__file__).resolve().parent.parent / "build" / "release")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--filter", default="decode f32/8", help="the phase, as bench/phases names it")
    given = parser.parse_args()
    program = given.build / "bench" / "phases"
    cores = len(os.sched_getaffinity(0))
    cases = {
        f"one process, {cores} threads": [cores],
        f"two processes, {cores} threads each": [cores, cores],
        f"two processes, {max(1, cores // 2)} threads each": [max(1, cores // 2)] * 2,
    }
    measured: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(given.rounds):
        for name, threads in cases.items():
            measured[name].append(run(program, given.filter, threads))
    first = next(iter(cases))
    print(f"| {given.filter} | tokens/s in all | of the first line |\n|---|---|---|")
    for name, values in measured.items():
        ratio = statistics.median(v / one for v, one in zip(values, measured[first]))
        print(f"| {name} | {statistics.median(values):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
