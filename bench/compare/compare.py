"""Drives the comparison: asks a worker of each tool in turn, checks that they agree, prints ratios. See compare.sh."""

import argparse
import json
import pathlib
import platform
import subprocess
import sys
import time
from importlib import metadata

import numpy
import phases as work
import report
import weights

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "compare"
HERE = pathlib.Path(__file__).resolve().parent


class Worker:
    def __init__(self, tool, program):
        self.tool = tool
        command = {
            "atmanrl": [program],
            "llama.cpp": [sys.executable, str(HERE / "llama_worker.py")],
            "PyTorch": [sys.executable, "-W", "ignore::FutureWarning", str(HERE / "torch_worker.py")],
        }[tool]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            sys.exit(f"compare: the worker of {self.tool} ended during {request['do']} {request.get('case', '')}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def distance(a, b):
    return float(numpy.linalg.norm(a - b) / numpy.linalg.norm(b))


def disagreement(one, other):
    """Largest relative distance of two outputs, and of what."""
    found = []
    if one["array"] is not None:
        if one["array"].shape != other["array"].shape:
            return float("inf"), "number of values"
        found.append((distance(one["array"], other["array"]), "values"))
    if "loss" in one:
        found.append((abs(one["loss"] / other["loss"] - 1), "loss"))
    if one.get("norms"):
        found += [
            (abs(one["norms"][name] / other["norms"][name] - 1), f"norm of the gradient of {name}")
            for name in other["norms"]
        ]
    return max(found)


def check(phase, outputs):
    """Returns a sentence per pair, and those of them where the tools do not compute the same."""
    lines, wrong = [], []
    for a, b, tolerance in phase.agree:
        found, what = disagreement(outputs[a], outputs[b])
        lines.append(f"{a} and {b} {found:.1e} of {tolerance:g} ({what})")
        if not found <= tolerance:  # nor NaN
            wrong.append(lines[-1])
    return lines, wrong


def run_phase(phase, workers, rounds):
    outputs, settings, missing = {}, {}, {}
    out = FOLDER / "out.f32"
    for worker in workers.values():
        worker.ask(do="forget")
    for case in phase.cases:
        notes = workers[case.tool].ask(
            do="prepare",
            case=case.name,
            model=str(FOLDER / "model" / phase.weights),
            weights=phase.weights,
            **case.fields,
        )
        if "not here" in notes:
            if not case.optional:
                sys.exit(f"compare: {case.name}: {notes['not here']}")
            missing[case.name] = notes["not here"]
            continue
        if notes.get("settings"):
            settings[case.name] = notes["settings"]
        out.unlink(missing_ok=True)
        answer = workers[case.tool].ask(do="run", case=case.name, out=str(out))
        answer["array"] = numpy.fromfile(out, dtype=numpy.float32) if out.exists() else None
        outputs[case.name] = answer
    phase = phase.without(missing)
    agreement, wrong = check(phase, outputs)
    print(
        f"{phase.title}, {phase.weights}: "
        + "; ".join(
            agreement
            + [f"{k}: {v}" for k, v in settings.items()]
            + [f"{k} is left out: {v}" for k, v in missing.items()]
        ),
        file=sys.stderr,
    )
    if wrong:
        print(
            f"compare: {phase.title}, {phase.weights}: not measured, because outputs disagree: {'; '.join(wrong)}",
            file=sys.stderr,
        )
        return None
    taken = []
    timed = [c for c in phase.cases if c.timed]
    for i in range(rounds):
        this = {}
        for case in timed[i % len(timed) :] + timed[: i % len(timed)]:  # nobody always follows the same neighbour
            answer = workers[case.tool].ask(do="run", case=case.name)
            this[case.name] = {"seconds": answer["seconds"], "tokens": answer["tokens"]}
            time.sleep(0.05)  # threads that wait for more work have gone to sleep then
        taken.append(this)
        print(
            "  " + ", ".join(f"{c.name} {report.shown(c, report.cost(c, this[c.name]))} {c.unit}" for c in timed),
            file=sys.stderr,
        )
    return {"rounds": taken, "agreement": agreement, "settings": settings, "date": time.strftime("%Y-%m-%d")}


def machine():
    return f"{report.machine()}; {work.THREADS} threads for every tool"


def versions():
    names = ("llama-cpp-python", "torch", "transformers")
    llama, *others = (f"{name} {metadata.version(name)}" for name in names)
    compiled = FOLDER / "llama_compiler"
    if compiled.exists():
        llama += f" ({compiled.read_text().strip()})"
    packages = ", ".join([llama, *others])
    commit = report.commit(ROOT, "include", "bench/compare_atmanrl.cpp")
    compiler = report.first_line("c++", "--version", cwd=ROOT)
    return f"atmanrl {commit} ({compiler}), {packages}, Python {platform.python_version()}"


def show(all_phases, chosen, results, page):
    """Prints the tables of the chosen phases and writes those of all into the page, into the block of the processor's
    family; 1 where one of the chosen is missing."""
    mine = {name: results["phases"].get(name) for name in (f"{p.name}/{p.weights}" for p in chosen)}
    print()
    print(report.text_table(report.RATIO_HEADER, report.ratio_rows(all_phases, mine)), end="\n\n")
    print(report.text_table(report.FIGURE_HEADER, report.figure_rows(all_phases, mine)))
    if page:
        page.write_text(report.place_block(page.read_text(), report.markdown(all_phases, results), results["family"]))
    return 0 if all(mine.values()) else 1


def main():
    all_phases = work.phases()
    names = list(dict.fromkeys(p.name for p in all_phases))
    parser = argparse.ArgumentParser(
        prog="bench/compare.sh", description="atmanrl beside llama.cpp and PyTorch + transformers."
    )
    parser.add_argument("--rounds", type=int, default=5, help="each tool runs once in each (default 5)")
    parser.add_argument(
        "--quick", action="store_true", help="one round: shows whether everything works, measures nothing"
    )
    parser.add_argument(
        "--phases", nargs="+", metavar="NAME", help="some of: " + " ".join(names) + ", or NAME/WEIGHTS: f32, bf16, q8_0, q4_k_m"
    )
    parser.add_argument(
        "--markdown",
        type=pathlib.Path,
        metavar="FILE",
        help="writes the tables of all phases measured so far into FILE, between the marks of this family of processors",
    )
    parser.add_argument("--stored", action="store_true", help="measures nothing: the tables of the latest results")
    parser.add_argument(
        "--family", metavar="NAME", help="with --stored: of other processors, whose results were copied here: amd-26"
    )
    parser.add_argument("--program", default=str(ROOT / "build/release/bench/compare_atmanrl"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    wanted = arguments.phases or names
    for name in wanted:
        if not any(name in (p.name, f"{p.name}/{p.weights}") for p in all_phases):
            parser.error(f"there is no phase {name}; there are {', '.join(names)}")
    chosen = [p for p in all_phases if p.name in wanted or f"{p.name}/{p.weights}" in wanted]

    if arguments.family and not arguments.stored:
        parser.error("--family is for --stored: what is measured is this processor")
    family = arguments.family or report.this_family()
    file = report.results_file(FOLDER, family)
    before = json.loads(file.read_text()) if file.exists() else None
    if before is not None and before["family"] != family:
        parser.error(f"{file} holds results of {before['family']}")
    if arguments.stored:
        if before is None:
            parser.error(f"there are no results yet: {file} does not exist")
        return show(all_phases, chosen, before, arguments.markdown)
    if any(p.weights not in weights.QUANTISED for p in chosen):
        weights.write(FOLDER / "model", work.SHAPE)
    if any(p.weights in weights.QUANTISED for p in chosen):
        weights.write_quantised(FOLDER / "model", work.QUANTISED_SHAPE)
    results, left_out = report.first_results(before if arguments.phases else None, family, machine(), versions())
    if left_out:
        print(
            f"compare: earlier results of {family} are of another machine or other versions and are left out",
            file=sys.stderr,
        )
    print(results["machine"], results["versions"], sep="\n", file=sys.stderr)
    tools = dict.fromkeys(c.tool for p in chosen for c in p.cases)
    workers = {tool: Worker(tool, arguments.program) for tool in tools}
    for phase in chosen:
        name = f"{phase.name}/{phase.weights}"
        results["phases"].pop(name, None)
        if found := run_phase(phase, workers, 1 if arguments.quick else arguments.rounds):
            results["phases"][name] = found
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
    for worker in workers.values():
        worker.close()
    return show(all_phases, chosen, results, arguments.markdown)


if __name__ == "__main__":
    sys.exit(main())
