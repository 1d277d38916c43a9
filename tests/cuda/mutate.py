#!/usr/bin/env python3
"""Breaks the CUDA kernels one place at a time and looks whether a test notices.

Each mutant is one change in one line of device code in include/atmanrl/cuda: a barrier left out, a bound moved by one, an
index that is off, a mask that is missing, a sum that is not added to. All of them are compiled into a copy of the headers
at once, each behind a number; a run with ATMANRL_MUTANT=17 has mutant 17 and no other. So a test is compiled once, not once
for every mutant. A mutant is killed when a test of its header fails, hangs or crashes in the emulation under the address
sanitizer (what lies outside of an allocation is poisoned there); who survives that is tried again with every access
traced, which finds races. A tool, not a test: it takes minutes.

    tests/cuda/mutate.py --list                 what there is to break
    tests/cuda/mutate.py --each 4               at most four mutants of each kind in each header
    tests/cuda/mutate.py --only sampling.cuh    of some headers
    tests/cuda/mutate.py --lines sampling.cuh:70 rope.cuh:31
    tests/cuda/mutate.py --jobs 16              so many side by side
    tests/cuda/mutate.py --folder F --compile   only compiles, into F; with the same choice, --folder F runs what is there
"""
import argparse
import collections
import concurrent.futures
import os
import pathlib
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = {  # header: the tests that know its kernels, the quickest to notice first
    "adamw.cuh": ["adamw_test", "adamw_ranges_test"],
    "advance.cuh": ["advance_test"],
    "attention_append.cuh": ["attention_test"],
    "attention_backward.cuh": ["attention_edits_test", "attention_test"],
    "attention_bf16_backward.cuh": ["attention_bf16_edits_test", "attention_bf16_test"],
    "attention_bf16_by_keys.cuh": ["attention_bf16_edits_test", "attention_bf16_test"],
    "attention_bf16_forward.cuh": ["attention_bf16_edits_test", "attention_bf16_test"],
    "attention_bf16_tile.cuh": ["attention_bf16_edits_test", "attention_bf16_test", "access_test"],
    "attention_by_keys.cuh": ["attention_edits_test", "attention_gradient_test", "attention_test"],
    "attention_forward.cuh": ["attention_edits_test", "attention_test"],
    "attention_inputs.cuh": ["attention_edits_test", "attention_test"],
    "attention_matrix_tile.cuh": ["attention_gradient_test", "attention_test"],
    "attention_parameters.cuh": ["attention_gradient_test"],
    "attention_tile.cuh": ["attention_edits_test", "attention_test", "access_test"],
    "divergence.cuh": ["divergence_test"],
    "elementwise.cuh": ["elementwise_test"],
    "gated.cuh": ["factors_test"],
    "embedding.cuh": ["embedding_test"],
    "gemm.cuh": ["matmul_test"],
    "lion.cuh": ["lion_test"],
    "log_prob.cuh": ["log_prob_test", "factors_test"],
    "matmul.cuh": ["matmul_test"],
    "mean_attention.cuh": ["attention_edits_test", "attention_test"],
    "reduce.cuh": ["rms_norm_test", "log_prob_test"],
    "rms_norm.cuh": ["rms_norm_test", "factors_test"],
    "rope.cuh": ["rope_test", "factors_test"],
    "rotation.cuh": ["rope_test", "factors_test", "skinny_fused_test"],
    "sampling.cuh": ["sampling_test"],
    "sgd.cuh": ["sgd_test"],
    "skinny.cuh": ["skinny_test"],
    "skinny_gated.cuh": ["skinny_fused_test"],
    "skinny_rope.cuh": ["skinny_fused_test"],
    "swiglu.cuh": ["swiglu_test", "factors_test"],
    "vector.cuh": ["factors_test"],
}
SMALL_HEADS = ["attention_bf16_edits_test", "attention_edits_test", "attention_gradient_test"]  # as in CMakeLists.txt
# Name; what is found in a line of device code; what is put before each of the pattern's groups, which are empty. M is 1
# with this mutant, otherwise 0. Insertions alone, so that a line can hold several mutants.
KINDS = [
    ("barrier left out", r"()__syncthreads\(\);", ["if (!M) "]),
    ("early return left out", r"^\s*if \(()[^;{]*()\) return;", ["!M && (", ")"]),
    ("last one forgotten", r"\bfor \([^;]*;[^;]*() < ", [" + M"]),
    ("one too many", r"\bif \([^;?]* < ()", ["M + "]),
    ("one too few", r"\bif \([^;?]* <= ()", ["-M + "]),
    ("bound moved", r"\bif \([^;?]* >= ()", ["M + "]),
    ("bound moved", r"\bif \([^;?]* > ()", ["-M + "]),
    ("mask missing", r"\bif \(()[^;{]*(?:query|holds|parameter|target|lowest|whole|position|fresh|real)[^;{]*\)(?: |$)", ["!M && "]),
    ("written, not added", r"(?:^|[ (])(?<!; )()(?P<sum>[a-z_][\w.]*(?:\[[^\]]*\])*) \+= (?!int\(|[\w:]*threads|Tile::|width\)|sample_)",
     ["(M ? void(SUM = 0) : void()), "]),
    ("wrong index", r"()threadIdx\.x()\b(?! [=!]=)", ["(", " + unsigned(M))"]),
    ("wrong stride", r" \* ()(?:columns|dim|ids|width|half|heads|size)()\b(?!\()", ["(", " - M)"]),
    ("wrong sign", r" - ()(?=[a-z])", ["(1 - 2 * M) * "]),
]
FLAGS = ("-std=c++20 -O1 -w -g1 -fno-strict-aliasing -DATMANRL_CUDA_EMULATION -I/usr/include/eigen3 "
         f"-DATMANRL_FIXTURES=\"{ROOT}/tests/fixtures\"")
LEGS = {  # compiler flags, linker flags
    "asan": ("-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-sanitize=null,alignment,object-size,pointer-overflow,vptr",
             "-fsanitize=address,undefined"),
    "traced": ("-fno-pie -fsanitize=thread --param tsan-instrument-func-entry-exit=0", "-no-pie"),
}
SWITCH = """#pragma once
#include <cstdlib>
inline int const atmanrl_mutant = std::getenv("ATMANRL_MUTANT") ? std::atoi(std::getenv("ATMANRL_MUTANT")) : 0;
#define ATMANRL_MUTANT(n) int(atmanrl_mutant == n)
"""

Mutant = collections.namedtuple("Mutant", "header row name line insertions")


def device_rows(text):
    """Numbers of the lines that run on the device: from a __global__ or __device__ function's head to its end."""
    inside, depth, found = False, 0, []
    for row, line in enumerate(text.split("\n")):
        if not inside and re.search(r"__(global|device)__", line) and not line.lstrip().startswith(("//", "#")):
            inside, depth, opened = True, 0, False
        if inside:
            depth += line.count("{") - line.count("}")
            opened = opened or "{" in line
            found.append(row)
            if opened and depth <= 0:
                inside = False
    return found


def mutants_of(header, each):
    text = (ROOT / "include/atmanrl/cuda" / header).read_text()
    lines = text.split("\n")
    of_kind = collections.defaultdict(list)
    for name, pattern, pieces in KINDS:
        for row in device_rows(text):
            code = lines[row].split("//")[0].rstrip()
            found = re.search(pattern, code)
            if not found or re.search(r"\bconstexpr\b|static_assert", code.split("=")[0]):
                continue
            named = found.groupdict()
            starts = [found.start(1), *([found.start(2)] if len(pieces) > 1 else [])]
            insertions = [(at, piece.replace("SUM", named.get("sum") or "")) for at, piece in zip(starts, pieces)]
            of_kind[name].append(Mutant(header, row, name, lines[row].strip(), insertions))
    for all_places in of_kind.values():
        step = max(1, len(all_places) // each) if each else 1
        yield from all_places[::step][: each or None]


def write_mutated(mutants, include):
    """Writes all mutants behind their numbers, from 1, into the headers below `include`."""
    by_line = collections.defaultdict(list)
    for number, m in enumerate(mutants, 1):
        by_line[m.header, m.row] += [(at, re.sub(r"\bM\b", f"ATMANRL_MUTANT({number})", piece)) for at, piece in m.insertions]
    for header in {m.header for m in mutants}:
        lines = (include / header).read_text().split("\n")
        for row, line in enumerate(lines):
            for at, piece in sorted(by_line.get((header, row), []), key=lambda i: i[0], reverse=True):
                line = line[:at] + piece + line[at:]
            lines[row] = line
        (include / header).write_text("\n".join(lines))


class Leg:
    """The tests of one leg."""

    def __init__(self, name, compiler, folder):
        self.compile_flags, self.link_flags = map(shlex.split, LEGS[name])
        self.name, self.compiler, self.folder, self.limits = name, shlex.split(compiler), folder, {}

    def compiled(self, unit):
        target = self.folder / f"{unit}.{self.name}.o"
        if not target.exists():
            flags = self.compile_flags if unit != "trace" else []  # the tracer itself is not traced
            source = self.folder / ("tests/cuda_emulation" if unit == "trace" else "tests/cuda") / f"{unit}.cpp"
            flags = [*flags, *(["-DATMANRL_CUDA_HEAD_DIMS=8+16"] if unit in SMALL_HEADS else [])]
            made = subprocess.run([*self.compiler, *shlex.split(FLAGS), *flags, "-include", str(self.folder / "switch.hpp"), f"-I{self.folder}/include",
                                   f"-I{self.folder}/tests", "-c", str(source), "-o", str(target)], capture_output=True, text=True)
            if made.returncode:
                sys.exit(f"{source.name} does not compile:\n{made.stderr[:4000]}")
        return str(target)

    def path(self, test):
        return self.folder / f"{test}.{self.name}"

    def link(self, test):
        if not self.path(test).exists():
            units = [self.compiled(u) for u in ["main", "catch_runner", test, *(["trace"] if self.name == "traced" else [])]]
            subprocess.run(["g++", *units, *self.link_flags, "-lfmt", "-lpcre2-8", "-lutf8proc", "-lxxhash", "-o", self.path(test)], check=True)

    def measure(self, test):
        """Without a mutant; how long a mutant's run may take follows."""
        begin = time.time()
        result = self.run(test, 0, 1800)
        if result.returncode:
            sys.exit(f"{test} ({self.name}) fails without a mutant:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
        print(f"{test} ({self.name}): {time.time() - begin:.0f} s without a mutant", flush=True)
        self.limits[test] = 5 + 2 * (time.time() - begin)

    def run(self, test, number, seconds):
        environment = {"ATMANRL_MUTANT": str(number), "ATMANRL_EMULATION_ABORT": "1",
                       "ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=0"}
        # A mutant that hangs is stopped by the system.
        return subprocess.run([self.path(test), "--abort"], capture_output=True, text=True, errors="replace", cwd=ROOT, env=os.environ | environment,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1,) * 2))

    def kills(self, number, header):
        return any(self.run(test, number, self.limits[test]).returncode for test in TESTS[header])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--each", type=int, default=0, help="at most so many of each kind in each header; 0: all")
    parser.add_argument("--only", nargs="+", metavar="HEADER", default=sorted(TESTS))
    parser.add_argument("--lines", nargs="+", metavar="HEADER:LINE", default=[])
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--legs", nargs="+", choices=LEGS, default=list(LEGS), help="in this order")
    parser.add_argument("--minutes", type=float, default=0, help="begin no mutant after so many; 0: never")
    parser.add_argument("--jobs", type=int, default=1, help="tests that run side by side")
    parser.add_argument("--folder", type=pathlib.Path, help="where headers and programs stay; what is there already is used")
    parser.add_argument("--compile", action="store_true", help="no more than that")
    options = parser.parse_args()
    chosen = options.only if not options.lines else sorted({place.split(":")[0] for place in options.lines})
    mutants = [m for header in chosen for m in mutants_of(header, options.each)]
    if options.lines:
        mutants = [m for m in mutants if f"{m.header}:{m.row + 1}" in options.lines]
    if options.list:
        for m in mutants:
            print(f"{m.header}:{m.row + 1}: {m.name}: {m.line}")
        print(f"{len(mutants)} mutants")
        return 0

    begin = time.time()
    with tempfile.TemporaryDirectory(prefix="mutants") as name:
        folder = (options.folder or pathlib.Path(name)).resolve()
        chosen_here = "".join(f"{m}\n" for m in mutants)
        if not (folder / "mutants").exists():
            shutil.copytree(ROOT / "include", folder / "include")  # whoever works on the tree meanwhile does not disturb
            shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("fixtures"))
            (folder / "switch.hpp").write_text(SWITCH)
            write_mutated(mutants, folder / "include/atmanrl/cuda")
            (folder / "mutants").write_text(chosen_here)
        elif (folder / "mutants").read_text() != chosen_here:
            sys.exit(f"{folder} holds other mutants; take another folder")
        legs = [Leg(leg, options.compiler, folder) for leg in options.legs]
        programs = [(leg, test) for leg in legs for test in sorted({t for m in mutants for t in TESTS[m.header]})]
        for leg, test in programs:
            leg.link(test)
        if options.compile:
            return 0

        def verdict(number, m):
            if options.minutes and time.time() - begin > 60 * options.minutes:
                return "not tried"
            by = next((f"killed ({leg.name})" for leg in legs if leg.kills(number, m.header)), "SURVIVED")
            print(f"{by}: {m.header}:{m.row + 1}: {m.name}: {m.line}", flush=True)
            return by

        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda p: p[0].measure(p[1]), programs))
            found = list(pool.map(verdict, range(1, len(mutants) + 1), mutants))
    verdicts = collections.defaultdict(collections.Counter)
    for m, by in zip(mutants, found):
        verdicts[m.header][by] += 1
    for header, of in [*verdicts.items(), ("all", sum(verdicts.values(), collections.Counter()))]:
        print(f"{header}: {sum(of.values())} mutants: " + ", ".join(f"{n} {by}" for by, n in sorted(of.items())))
    print(f"{time.time() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
