#!/usr/bin/env python3
"""Breaks the CUDA kernels one place at a time and looks whether a test notices.

Each mutant is one change in one header of include/atmanrl/cuda: a barrier left out, a bound moved by one, an index that is
off, a mask that is missing, a sum that is not added to. The tests of that header are compiled over the changed copy with
the emulation and run; a mutant is killed when one fails, hangs or crashes. A tool, not a test: it takes minutes.

    tests/cuda/mutate.py --list                 what there is to break
    tests/cuda/mutate.py --each 4               at most four mutants of each kind in each header
    tests/cuda/mutate.py --only sampling.cuh
"""
import argparse
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = {  # header: the tests that know its kernels
    "adamw.cuh": ["adamw_test", "adamw_ranges_test"],
    "attention_append.cuh": ["attention_test"],
    "attention_backward.cuh": ["attention_test"],
    "attention_by_keys.cuh": ["attention_gradient_test"],
    "attention_forward.cuh": ["attention_test"],
    "attention_inputs.cuh": ["attention_test"],
    "attention_parameters.cuh": ["attention_gradient_test"],
    "attention_tile.cuh": ["attention_test"],
    "elementwise.cuh": ["elementwise_test"],
    "embedding.cuh": ["embedding_test"],
    "gemm.cuh": ["matmul_test"],
    "log_prob.cuh": ["log_prob_test"],
    "matmul.cuh": ["matmul_test"],
    "reduce.cuh": ["rms_norm_test", "log_prob_test"],
    "rms_norm.cuh": ["rms_norm_test"],
    "rope.cuh": ["rope_test"],
    "sampling.cuh": ["sampling_test"],
    "swiglu.cuh": ["swiglu_test"],
}
KINDS = [  # name, what is found in a line of device code, what stands there instead
    ("barrier left out", r"__syncthreads\(\);", ";"),
    ("early return left out", r"^(\s*)if \([^;{]*\) return;", r"\1;"),
    ("last one forgotten", r"(\bfor \([^;]*;[^;]*) < ", r"\1 + 1 < "),
    ("one too many", r"(\bif \([^;?]*) < ", r"\1 <= "),
    ("bound moved", r"(\bif \([^;?]*) >= ", r"\1 > "),
    ("mask missing", r"(\bif \()([^;{]*(?:query|holds|parameter|target|lowest|whole)[^;{]*\) )", r"\1false && \2"),
    ("written, not added", r" \+= (?!int\(|[\w:]*threads|Tile::|width\)|sample_)", " = "),
    ("wrong index", r"threadIdx\.x\b(?! [=!]=)", "(threadIdx.x + 1)"),
    ("wrong stride", r" \* (columns|dim|ids|width|half|heads|size)\b(?!\()", r" * (\1 - 1)"),
    ("wrong sign", r" - (?=[a-z])", " + "),
]
# With the address sanitizer, because what lies outside of an allocation is poisoned: a bound that is off by one shows.
FLAGS = ("-std=c++20 -O1 -w -g1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-strict-aliasing -fopenmp -DATMANRL_CUDA_EMULATION "
         f"-I/usr/include/eigen3 -DATMANRL_FIXTURES=\"{ROOT}/tests/fixtures\"")


def device_lines(text):
    """Numbers of the lines that run on the device: from a __global__ or __device__ function's head to its end."""
    inside, depth, found = False, 0, []
    for number, line in enumerate(text.split("\n")):
        if not inside and re.search(r"__(global|device)__", line) and not line.lstrip().startswith(("//", "#")):
            inside, depth, opened = True, 0, False
        if inside:
            depth += line.count("{") - line.count("}")
            opened = opened or "{" in line
            found.append(number)
            if opened and depth <= 0:
                inside = False
    return found


def mutants_of(header, each):
    text = (ROOT / "include/atmanrl/cuda" / header).read_text()
    lines = text.split("\n")
    for name, pattern, instead in KINDS:
        places = [n for n in device_lines(text) if re.search(pattern, lines[n]) and not lines[n].lstrip().startswith("//")]
        step = max(1, len(places) // each) if each else 1
        for n in places[::step][: each or None]:
            changed = re.sub(pattern, instead, lines[n], count=1)
            yield header, n, name, lines[n].strip(), "\n".join(lines[:n] + [changed] + lines[n + 1:])


def run(command, seconds):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT,
                              env=os.environ | {"ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=0"})
    except subprocess.TimeoutExpired:
        return None


def compiled(compiler, folder, unit, target):
    return run([*shlex.split(compiler), *shlex.split(FLAGS), f"-I{folder}/include", f"-I{folder}/tests", "-c",
                f"{folder}/tests/cuda/{unit}.cpp", "-o", str(target)], 600)


def linked(objects, target):
    return run(["g++", *map(str, objects), "-fopenmp", "-fsanitize=address,undefined", "-lfmt", "-lpcre2-8", "-o", str(target)], 600)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--each", type=int, default=0, help="at most so many of each kind in each header; 0: all")
    parser.add_argument("--only", nargs="+", metavar="HEADER", default=sorted(TESTS))
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so many; 0: never")
    options = parser.parse_args()
    mutants = [m for header in options.only for m in mutants_of(header, options.each)]
    if options.list:
        for header, n, name, line, _ in mutants:
            print(f"{header}:{n + 1}: {name}: {line}")
        print(f"{len(mutants)} mutants")
        return 0

    folder = pathlib.Path(tempfile.mkdtemp(prefix="mutants"))
    shutil.copytree(ROOT / "include", folder / "include")  # whoever works on the tree meanwhile does not disturb
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("fixtures"))
    cuda = folder / "include/atmanrl/cuda"
    begin, killed, survived, unbuilt = time.time(), 0, [], []
    main_object = folder / "main.o"
    if compiled(options.compiler, folder, "main", main_object).returncode:
        sys.exit("main.cpp does not compile")
    limits = {}
    for test in sorted({t for header in options.only for t in TESTS[header]}):  # without a change all pass
        target = folder / test
        made = compiled(options.compiler, folder, test, folder / f"{test}.o")
        if made.returncode or linked([main_object, folder / f"{test}.o"], target).returncode:
            sys.exit(f"{test}.cpp does not compile:\n{made.stderr[-2000:]}")
        started = time.time()
        if run([str(target)], 900).returncode:
            sys.exit(f"{test} fails without a mutant")
        limits[test] = 20 + 5 * (time.time() - started)
    for done, (header, n, name, line, text) in enumerate(mutants):
        if options.minutes and time.time() - begin > 60 * options.minutes:
            print(f"{len(mutants) - done} mutants were not tried")
            break
        original = (cuda / header).read_text()
        (cuda / header).write_text(text)
        verdict = "SURVIVED"
        for test in TESTS[header]:
            made = compiled(options.compiler, folder, test, folder / "mutant.o")
            if made is None or made.returncode or linked([main_object, folder / "mutant.o"], folder / "mutant").returncode:
                verdict = "does not compile"
                break
            result = run([str(folder / "mutant"), "--abort"], limits[test])
            if result is None or result.returncode:
                verdict = "killed"
                break
        (cuda / header).write_text(original)
        killed += verdict == "killed"
        (survived if verdict == "SURVIVED" else unbuilt if verdict != "killed" else []).append(f"{header}:{n + 1}: {name}: {line}")
        print(f"{verdict}: {header}:{n + 1}: {name}: {line}", flush=True)
    shutil.rmtree(folder)
    print(f"{killed} killed, {len(survived)} survived, {len(unbuilt)} do not compile, {time.time() - begin:.0f} s")
    for sentence in survived:
        print("survived:", sentence)
    return 0


if __name__ == "__main__":
    sys.exit(main())
