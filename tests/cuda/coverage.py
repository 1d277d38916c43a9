#!/usr/bin/env python3
"""Lines of include/atmanrl/cuda that the emulated tests do not execute, by gcov; exit status 1 when there are any.

    tests/cuda/coverage.py [TEST...]      names of tests/cuda/*_test.cpp without the ending; all when none is given

A tool, not a test: it compiles the tests without optimisation.
"""
import collections
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = (f"-std=c++20 -O0 -w --coverage -fno-strict-aliasing -DATMANRL_CUDA_EMULATION -I{ROOT}/include -I{ROOT}/tests "
         f"-I/usr/include/eigen3 -DATMANRL_FIXTURES=\"{ROOT}/tests/fixtures\"")


def main():
    tests = sys.argv[1:] or sorted(p.stem for p in (ROOT / "tests/cuda").glob("*_test.cpp"))
    lines = collections.defaultdict(lambda: collections.defaultdict(int))
    with tempfile.TemporaryDirectory(prefix="coverage") as folder:
        objects = []
        for unit in ["main", "catch_runner", *tests]:
            objects.append(f"{folder}/{unit}.o")
            subprocess.run(["g++", *shlex.split(FLAGS), "-c", str(ROOT / f"tests/cuda/{unit}.cpp"), "-o", objects[-1]], check=True, cwd=folder)
        subprocess.run(["g++", *objects, "--coverage", "-lfmt", "-lpcre2-8", "-lutf8proc", "-lxxhash", "-o", f"{folder}/all"], check=True)
        if subprocess.run([f"{folder}/all"], cwd=folder).returncode:
            print("the tests fail, so what they execute says little")
        for data in sorted(pathlib.Path(folder).glob("*.gcda")):
            found = subprocess.run(["gcov", "--json-format", "--stdout", str(data)], capture_output=True, text=True, check=True, cwd=folder)
            for text in found.stdout.splitlines():
                for file in json.loads(text)["files"]:
                    name = file["file"]
                    if "/atmanrl/cuda/" not in name:
                        continue
                    for line in file["lines"]:  # once per instantiation
                        lines[pathlib.Path(name).name][line["line_number"]] += line["count"]
    missed = [(name, n) for name, counts in sorted(lines.items()) for n, count in sorted(counts.items()) if count == 0]
    for name, n in missed:
        text = (ROOT / "include/atmanrl/cuda" / name).read_text().split("\n")[n - 1].strip()
        print(f"not executed: {name}:{n}: {text}")
    print(f"{sum(map(len, lines.values()))} lines in {len(lines)} headers, {len(missed)} not executed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
