#!/usr/bin/env python3
"""Checks of the CUDA backend with the real compiler; no device is needed. Exits with 77 where there is no nvcc.

nvcc.py alone                 each header of atmanrl/cuda/ compiles as the only include of a unit
nvcc.py kernels [--write]     every kernel compiles for sm_80, sm_90 and sm_100 without a warning, two units link,
                              registers, spills and shared memory are not above budget.txt, which --write renews, and
                              in the PTX for sm_90 kernels of float have no double arithmetic, those that promise
                              vectors load vectors, no float is added atomically, and attention in bf16 is products
                              of the matrix units, whose factors are loaded as such, and so are products of few
                              rows; nothing is kept in local memory
nvcc.py nccl                  the communicator over NCCL compiles, links libnccl, and the version that is loaded is one
                              that it takes; 77 also where NCCL is not (--nccl-include DIR --nccl-library FILE)
all with --nvcc NVCC --include DIR --out DIR; --units leaves units out. Device code is optimised by default; the host's
is not, because nothing of it is looked at.
"""
import argparse
import collections
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BUDGET = HERE / "budget.txt"
ARCHITECTURES = ("80", "90", "100")
LINKED = "90"
UNITS = ("every_kernel.cu", "every_attention_kernel.cu")
# Sums squares in double, because the square of a finite float may overflow a float.
MAY_USE_DOUBLE = ("sum_squares",)
# Kernels that read and write whole vectors where they can, by name; Width is their last number.
PROMISE_VECTORS = ("rms_norm_forward", "rms_norm_again", "rms_norm_backward_input", "swiglu_forward", "swiglu_backward",
                   "rope_rotate", "rope_into", "rope_append", "copy_rows", "scatter_add_rows", "add_bias", "sum_rows", "add_partial_sums", "add_all",
                   "sum_of_rows", "scale_all", "copy_columns", "sum_squares", "convert", "adamw_step", "update_and_store", "sgd_step",
                   "momentum_step", "lion_step", "softmax_accumulate", "softmax_backward", "divergence_and_gradient", "largest_of_parts",
                   "masses_of_pieces", "score_parts")


# What each kernel of attention in bf16 consists of; those with keys and values in bf16 copy them asynchronously, too.
BF16_ATTENTION = ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
                  "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", "ex2.approx.ftz.f32", "cvt.rn.bf16x2.f32")
ASYNCHRONOUS = "cp.async.cg.shared.global"
# And of products of few rows: weights past the L1 cache, x through it, 16 bytes at a time.
FEW_ROWS = (BF16_ATTENTION[0], "ld.global.cg.v4.u32", "ld.global.nc.v4.u32")


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def nvcc(options, *more):
    return run([options.nvcc, "-std=c++20", "--expt-relaxed-constexpr", "-diag-suppress=554", "-DFMT_USE_CONSTEXPR=1", "-Werror", "all-warnings", "-Xcompiler=-Wall,-Wextra", f"-I{options.include}", *more])


def demangled(text):
    return subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout


def short(name):
    """A kernel's name without its arguments and namespaces."""
    depth, end = 0, len(name)
    for i, letter in enumerate(name):
        depth += (letter in "<") - (letter in ">")
        if letter == "(" and depth == 0 and not name.startswith("(anonymous namespace)", i):
            end = i
            break
    name = re.sub(r"^void ", "", name[:end])
    name = re.sub(r"::v\d+_\d+_\d+\b", "", name)  # ATMANRL_ABI
    return re.sub(r"\(anonymous namespace\)::|atmanrl::(cuda|attention|kernels)::|atmanrl::|, ", lambda m: "," if m[0] == ", " else "", name)


def alone(options):
    names = sorted(p.relative_to(options.include).as_posix() for p in (options.include / "atmanrl" / "cuda").glob("*.cuh"))
    names.append("atmanrl/cuda.hpp")

    def check(name):
        source = options.out / (name.replace("/", ".") + ".cu")
        # Only targets with NCCL include this one.
        needed = "#if __has_include(<nccl.h>)\n#define ATMANRL_NCCL\n" if name.endswith("/nccl.cuh") else "#if true\n"
        source.write_text(f"{needed}#include <{name}>\n#endif\n")
        return name, *nvcc(options, "-arch=sm_90", "-ptx", source, "-o", source.with_suffix(".ptx"))

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        failed = [(name, text) for name, ok, text in pool.map(check, names) if not ok]
    for name, text in failed:
        print(f"{name} does not compile alone:\n{text}")
    print(f"{len(names) - len(failed)} of {len(names)} headers compile alone")
    return 1 if failed else 0


def nccl(options):
    if not options.nccl_include or not options.nccl_library:
        print("no NCCL: skipped")
        return 77
    program = options.out / "nccl_program"
    ok, text = nvcc(options, f"-arch=sm_{LINKED}", "-DATMANRL_NCCL", "-isystem", options.nccl_include,
                    HERE / "nccl_program.cu", "-o", program, options.nccl_library, "-lcublas", "-lfmt")
    if not ok:
        print(f"the communicator over NCCL does not compile and link:\n{text}")
        return 1
    folder = pathlib.Path(options.nccl_library).parent  # where the loader may not look
    ok, text = run(["env", f"LD_LIBRARY_PATH={folder}:{os.environ.get('LD_LIBRARY_PATH', '')}", program])
    print(text.rstrip())
    return 0 if ok else 1


def measured(log):
    """{kernel: {architecture: (registers, spilled bytes, shared bytes)}} from what ptxas -v prints."""
    found = collections.defaultdict(dict)
    kernel = architecture = spilled = None
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(.+)' for 'sm_(\d+)", line):
            kernel, architecture = short(match[1]), match[2]
        elif match := re.search(r"bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spilled = int(match[1]) + int(match[2])
        elif kernel and (match := re.search(r"Used (\d+) registers", line)):
            shared = re.search(r"(\d+) bytes smem", line)
            found[kernel][architecture] = (int(match[1]), spilled, int(shared[1]) if shared else 0)
            kernel = None
    return found


def kernels(options):
    # Each architecture by itself, so that two are compiled at a time; one of them with the host's code, to be linked.
    def build(job):
        unit, architecture = job
        if architecture != LINKED:
            return nvcc(options, f"-arch=sm_{architecture}", "-Xptxas=-v", "-cubin", HERE / unit, "-o",
                        options.out / f"{unit}.{architecture}.cubin")
        kept = options.out / (unit + ".kept")
        kept.mkdir(exist_ok=True)
        return nvcc(options, "-gencode", f"arch=compute_{LINKED},code=sm_{LINKED}", "--keep", "--keep-dir", kept, "-Xptxas=-v",
                    "-c", HERE / unit, "-o", options.out / (unit + ".o"))

    jobs = [(unit, a) for unit in reversed(options.units) for a in ARCHITECTURES]  # attention, which takes longest, first
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        builds = list(pool.map(build, jobs))
    for (unit, architecture), (ok, text) in zip(jobs, builds):
        if not ok:
            print(f"{unit} does not compile for sm_{architecture}:\n{text}")
            return 1
    if len(options.units) > 1:
        ok, text = run([options.nvcc, *(options.out / (unit + ".o") for unit in options.units), "-o",
                        options.out / "two_units", "-lcublas", "-lfmt"])
        if not ok:
            print(f"two units that include everything do not link:\n{text}")
            return 1
    texts = [next((options.out / (unit + ".kept")).glob("*.ptx")).read_text() for unit in options.units]
    return budget(options, demangled("".join(text for _, text in builds))) | ptx([demangled(text) for text in texts])


def budget(options, log):
    found = measured(log)
    lines = []
    for kernel in sorted(found):
        numbers = "  ".join("/".join(map(str, found[kernel].get(a, ("-",)))) for a in ARCHITECTURES)
        lines.append(f"{kernel}  {numbers}")
    if options.write:
        BUDGET.write_text("# kernel, then for sm_80, sm_90 and sm_100: registers/spilled bytes/static shared bytes\n"
                          "# Written by nvcc.py kernels --write; nvcc.py kernels fails when a kernel needs more.\n"
                          + "\n".join(lines) + "\n")
        print(f"{len(lines)} kernels written to {BUDGET}")
        return 0
    allowed = {}
    for line in BUDGET.read_text().splitlines():
        if line and not line.startswith("#"):
            kernel, *numbers = line.split("  ")
            allowed[kernel] = [tuple(map(int, n.split("/"))) for n in numbers]
    complaints = [f"{kernel} is in {BUDGET.name}, but not among the kernels" for kernel in allowed if kernel not in found]
    for kernel in sorted(found):
        if kernel not in allowed:
            complaints.append(f"{kernel} has no budget; run nvcc.py kernels --write")
            continue
        for a, most in zip(ARCHITECTURES, allowed[kernel]):
            now = found[kernel].get(a)
            if now is not None and now[1] and kernel.startswith(("attention_bf16", "skinny")):
                complaints.append(f"{kernel} for sm_{a} spills {now[1]} bytes")
            if now is None or any(n > m for n, m in zip(now, most)):
                complaints.append(f"{kernel} for sm_{a}: registers/spills/shared {now}, allowed {most}")
    print("\n".join(complaints) if complaints else f"{len(found)} kernels are within their budget on sm_80, sm_90 and sm_100")
    return 1 if complaints else 0


def ptx_kernels(text):
    """(kernel, [instructions]) of a demangled PTX file."""
    kernel, body = None, []
    for line in text.splitlines():
        if match := re.match(r"^(?:\.visible |\.weak )?\.entry (.+)$", line):
            if kernel:
                yield kernel, body
            kernel, body = short(match[1]), []
        elif kernel and (match := re.match(r"^\s+(?:@!?%p\d+\s+)?([a-z][\w.:]*)", line)):
            body.append(match[1])
    if kernel:
        yield kernel, body


def ptx(texts):
    complaints, counted, attends, products = [], 0, False, []
    for text in texts:
        for kernel, body in ptx_kernels(text):
            counted += 1
            name = kernel.split("<")[0]
            attends |= name == "attention_forward_kernel"
            arguments = kernel[len(name):]
            if "double" not in arguments and name not in MAY_USE_DOUBLE and any(".f64" in i for i in body):
                complaints.append(f"{kernel} computes in double")
            widths = re.findall(r"(?<![\w])(?:\(int\))?(\d+)(?![\w])", arguments)
            if name in PROMISE_VECTORS and widths and int(widths[0]) > 1:
                if not any(re.match(r"ld\.global(\.nc)?\.v[24]", i) for i in body):
                    complaints.append(f"{kernel} has no vector load")
            if any(re.match(r"(atom|red)\.\S*\.f(32|64)", i) for i in body):
                complaints.append(f"{kernel} adds floats atomically")
            if name.startswith("attention_bf16"):
                wanted = [*BF16_ATTENTION, *([ASYNCHRONOUS] if ",bf16," in arguments else [])]
                complaints += [f"{kernel} has no {i}" for i in wanted if i not in body]
                products.append(body.count(BF16_ATTENTION[0]))
            if name.startswith("skinny::"):
                complaints += [f"{kernel} has no {i}" for i in FEW_ROWS if i not in body]
            if any(i.startswith(("ld.local", "st.local")) for i in body):
                complaints.append(f"{kernel} keeps values in local memory")
    if attends and not products:
        complaints.append("no kernel of attention in bf16")
    print("\n".join(complaints) if complaints else f"{counted} kernels: no double in float kernels, vectors where promised, no atomic floats, no local memory"
          + (f"; {len(products)} of attention in bf16, with {min(products)} to {max(products)} products of the matrix units in their code" if products else ""))
    return 1 if complaints else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("check", choices=("alone", "kernels", "nccl"))
    parser.add_argument("--nvcc", default="")
    parser.add_argument("--include", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--nccl-include", default="")
    parser.add_argument("--nccl-library", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--units", nargs="+", default=UNITS, choices=UNITS)
    options = parser.parse_args()
    if not options.nvcc or not pathlib.Path(options.nvcc).is_file():
        print("no nvcc: skipped")
        return 77
    options.out.mkdir(parents=True, exist_ok=True)
    return {"alone": alone, "kernels": kernels, "nccl": nccl}[options.check](options)


if __name__ == "__main__":
    sys.exit(main())
