#!/usr/bin/env python3
"""Steps on one rank of this tree beside those of an older commit: overhead.py --commit a6e4908 WORK

Compiles bench/overhead/steps.cpp against the headers of both, in the folder WORK, and runs the two programs in turn.
Prints the ratio of processor seconds of each pair of runs: median, least and greatest.
"""
import argparse
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLAGS = ["-std=c++20", "-O2", "-DNDEBUG", "-march=native", "-isystem", "/usr/include/eigen3", "-DFMT_SHARED"]
LIBRARIES = ["-lfmt", "-lpcre2-8", "-lutf8proc", "-lxxhash", "-lpthread"]


def build(work, name, include, compiler):
    program = work / name
    if not program.exists():
        subprocess.run([*compiler, *FLAGS, f"-I{include}", str(ROOT / "bench/overhead/steps.cpp"), "-o", str(program),
                        *LIBRARIES], check=True)
    return program


def seconds(program, model, steps):
    done = subprocess.run([str(program), model, str(steps), str(ROOT / "examples/models/tiny")], check=True,
                          stdout=subprocess.PIPE, text=True)
    return statistics.median(map(float, done.stdout.split()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--commit", default="a6e4908")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("work", type=pathlib.Path)
    options = parser.parse_args()
    before = options.work / options.commit
    before.mkdir(parents=True, exist_ok=True)
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", options.commit, "include"], check=True,
                             stdout=subprocess.PIPE)
    subprocess.run(["tar", "x", "-C", str(before)], check=True, input=archive.stdout)
    old = build(options.work, f"steps-{options.commit}", before / "include", options.compiler.split())
    new = build(options.work, "steps", ROOT / "include", options.compiler.split())
    for model in ("tiny", "large"):
        ratios, times = [], []
        for number in range(options.rounds):
            order = [old, new] if number % 2 == 0 else [new, old]
            found = {program: seconds(program, model, options.steps) for program in order}
            ratios.append(found[new] / found[old])
            times.append(found[new])
        print(f"{model}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) times the processor "
              f"seconds of {options.commit}, a step takes {statistics.median(times):.2f} s", flush=True)


main()
