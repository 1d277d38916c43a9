#!/usr/bin/env python3
"""Runs what the figures in docs/ were measured with, prints them as Markdown, and writes them into their pages.

    python3 bench/experiments.py --list                        # names, pages, about how long each takes
    python3 bench/experiments.py offline mask-scale            # builds what these need, runs it, prints the tables
    python3 bench/experiments.py --markdown offline            # and writes them between the marks of the page
    python3 bench/experiments.py --stored --markdown offline   # the same from the latest results, without measuring
    python3 bench/experiments.py --quick                       # smallest settings: does everything work?

A table stands in its page between `<!-- NAME: begin -->` and `<!-- NAME: end -->`. What the programs printed, their
time, and their folders are kept in runs/experiments/. Times are good for something only where nothing else runs.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "compare"))
import report  # noqa: E402

CODE = ("include", "examples", "bench/*.cpp", "bench/*.hpp", "cmake")  # what a figure depends on


class Failed(Exception):
    """An experiment that gives no table, with the reason."""


@dataclass
class Result:
    """A command that ran: what it printed, and what it took."""

    command: str
    folder: str
    output: str
    seconds: float
    processor_seconds: float
    commit: str
    machine: str
    date: str

    def file(self, name: str) -> Path:
        return Path(self.folder) / name

    def lines(self, name: str) -> list[dict]:
        return [json.loads(line) for line in self.file(name).read_text().splitlines()]


class Runner:
    """Runs commands, each once, and keeps what they gave."""

    def __init__(self, build: Path, out: Path, quick: bool, stored: bool, to_page: bool, resume: bool = False):
        self.build, self.out, self.quick, self.stored, self.to_page = build, out, quick, stored, to_page
        self.resume = resume
        self.done: dict[str, Result] = {}

    def program(self, name: str) -> str:
        return os.path.relpath(self.build / name, ROOT)

    def run(
        self, name: str, *command: str, out: str = "", quick: tuple[str, ...] = (), goes_on: bool = False
    ) -> Result:
        """Runs the command in the repository's root, unless it has run as `name` already.
        out      option that takes the folder for its files, if it has one
        quick    options and their values that --quick puts in the place of others
        goes_on  the program takes over what it finds finished; --resume leaves it there"""
        if name in self.done:
            return self.done[name]
        folder, kept = self.out / name, self.out / f"{name}.json"
        words = with_options(command, quick) if self.quick else list(command)
        if out:
            words += [out, os.path.relpath(folder, ROOT)]
        line = shlex.join(words)
        if self.stored:
            if not kept.exists():
                raise Failed(f"{kept} does not exist: {name} has not been run yet")
            result = Result(**json.loads(kept.read_text()))
            if result.command != line:
                raise Failed(f"{kept} is of another command: {result.command}")
        else:
            kept.unlink(missing_ok=True)
            if not (self.resume and goes_on):  # programs that go on where they were must not find anything
                shutil.rmtree(folder, ignore_errors=True)
            self.out.mkdir(parents=True, exist_ok=True)
            print(f"{name}: {line}", file=sys.stderr, flush=True)
            start = time.monotonic()
            child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            printed = []
            for text in child.stdout:
                printed.append(text)
                print(text, end="", file=sys.stderr, flush=True)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode != 0:
                raise Failed(f"{line} ended with status {child.returncode}")
            result = Result(
                command=line,
                folder=str(folder),
                output="".join(printed),
                seconds=time.monotonic() - start,
                processor_seconds=used.ru_utime + used.ru_stime,
                commit=report.commit(ROOT, *CODE),
                machine=report.machine(),
                date=time.strftime("%Y-%m-%d"),
            )
            kept.write_text(json.dumps(asdict(result), indent=1) + "\n")
        self.done[name] = result
        return result

    def experiment(self, name: str, *options: str) -> Result:
        """A run of gsm8k_experiment."""
        small = ("--steps", "2", "--eval-questions", "4", "--eval-samples", "2")
        return self.run(name, self.program("examples/gsm8k_experiment"), *options, out="--out", quick=small)

    def offline(self) -> Result:
        """What `bash examples/run.sh` runs."""
        return self.experiment("offline", "--model", "examples/models/tiny")


def with_options(command: tuple[str, ...], options: tuple[str, ...]) -> list[str]:
    """The command with these options; what it says of the same ones is left out, for some programs take them once."""
    words = list(command)
    for option in (word for word in options if word.startswith("--")):
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    return [*words, *options]


def paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def table(header: list[str], rows: list[list[str]]) -> str:
    return report.markdown_table(header, rows)


def measured(*results: Result) -> str:
    """The sentence below a block: which code, when and where."""

    def each(values):
        return ", ".join(dict.fromkeys(values))

    return paragraph(
        f"Measured at {each(r.commit for r in results)} on {each(r.date for r in results)}: "
        f"{each(r.machine for r in results)}."
    )


def indented(text: str) -> str:
    return textwrap.indent(text.strip("\n"), "    ")


def summary(result: Result) -> str:
    """The tables that an experiment ends with, and its memory."""
    return indented(result.file("summary.txt").read_text().rstrip("\n") + "\n" + peak_memory(result))


def peak_memory(result: Result) -> str:
    return re.search(r"^peak memory .*$", result.output, re.M)[0]


def arrow(before: float, after: float, digits: int) -> str:
    return f"{before:.{digits}f} → {after:.{digits}f}".replace("-", "−")


def changes(result: Result) -> tuple[str, str, str]:
    """Strict accuracy in %, tokens per chain of thought, mean reward of the first and last step."""
    before, after = (json.loads(result.file(f"evaluation_{when}.json").read_text()) for when in ("before", "after"))
    steps = result.lines("metrics.jsonl")
    return (
        arrow(100 * before["accuracy_strict"]["value"], 100 * after["accuracy_strict"]["value"], 1),
        arrow(before["cot_tokens"]["value"], after["cot_tokens"]["value"], 1),
        arrow(steps[0]["reward"], steps[-1]["reward"], 3),
    )


def fetch_smollm2(runner: Runner) -> str:
    """Sees to it that no clock runs while the model is fetched."""
    if not runner.stored:
        subprocess.run(["bash", "cmake/fetch_smollm2.sh"], cwd=ROOT, check=True, stdout=sys.stderr)
    return "data/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2(runner: Runner) -> str:
    fetch_smollm2(runner)
    small = ("--steps", "1", "--eval-questions", "2", "--max-new-tokens", "20")
    r = runner.run("smollm2", *"bash examples/run.sh --model smollm2 --task gsm8k".split(), out="--out", quick=small)
    return "\n\n".join(
        [
            summary(r),
            paragraph(f"The command took {r.seconds:.0f} s, with the program built and the model fetched before."),
            measured(r),
        ]
    )


def offline(runner: Runner) -> str:
    r = runner.offline()
    return "\n\n".join([summary(r), paragraph(f"Training and evaluation took {r.seconds:.0f} s."), measured(r)])


def mask_scale(runner: Runner) -> str:
    rows, results = [], []
    for scale, seed in (("15", "0"), ("auto", "0"), ("40", "1")):
        options = ("--mask-scale", scale, "--seed", seed)
        r = runner.offline() if scale == "auto" else runner.experiment(f"mask-scale-{scale}", *options)
        accuracy, tokens, reward = changes(r)
        name = "`--seed 0` (above)" if scale == "auto" else f"`{' '.join(options)}`"
        rows.append([name, accuracy, tokens, reward])
        results.append(r)
    header = ["options", "accuracy, strict %", "tokens per chain of thought", "reward, first and last step"]
    return "\n\n".join([table(header, rows), measured(*results)])


def learning_rate(runner: Runner) -> str:
    rows, results = [], []
    for rate in ("1e-4", "3e-5", "1e-5"):
        row = [rate]
        for seed in ("1", "2"):
            options = f"--steps 40 --prompts-per-step 4 --lr-warmup 0 --lr {rate} --seed {seed}"
            r = runner.experiment(f"learning-rate-{rate}-seed{seed}", *options.split())
            row += changes(r)[:2]
            results.append(r)
        rows.append(row)
    header = ["learning rate", "accuracy %, seed 1", "tokens per chain", "accuracy %, seed 2", "tokens per chain"]
    return "\n\n".join([table(header, rows), measured(*results)])


def trained_tiny(runner: Runner, steps: int) -> Result:
    """The bundled model from scratch."""
    small = ("--steps", "2", "--eval-questions", "4")
    command = (runner.program("examples/train_tiny"), "--steps", str(steps))
    return runner.run(f"tiny-{steps}", *command, out="--out", quick=small)


def warm_up(runner: Runner) -> str:
    model = trained_tiny(runner, 1000)
    rows, results = [], [model]
    for start, steps in (("", "40"), (f"--model {os.path.relpath(model.folder, ROOT)} ", "20")):
        for warmup in ("0", "10"):
            options = f"{start}--steps {steps} --lr-warmup {warmup}"
            always = "--saliency-weight 0 --prompts-per-step 4 --lr 1e-4 --seed 1"
            r = runner.experiment(f"warm-up-{len(rows)}", *options.split(), *always.split())
            ratio = f"{min(s['ratio/min'] for s in r.lines('metrics.jsonl')[:5]):.2g}"
            rows.append([f"`{options}`", ratio, *changes(r)[:2]])
            results.append(r)
    header = ["further options", "least ratio of a token, steps 1 to 5", "accuracy %", "tokens per chain"]
    return "\n\n".join([table(header, rows), measured(*results)])


def table1(runner: Runner) -> str:
    small = "--steps 2 --questions 10 --causal-questions 10 --printed-mask-steps 2".split()
    r = runner.run("table1", runner.program("examples/reproduce_table1"), out="--out", quick=small, goes_on=True)
    # Its arms may be those of several commands, which --seeds shares out, so that each knows its own time.
    seconds = [json.loads(arm.read_text())["processor_seconds"] for arm in Path(r.folder).glob("*-seed*.json")]
    took = f"The {len(seconds)} runs took {sum(seconds) / 60:.0f} minutes of processor time."
    return "\n\n".join([wrapped_notes(r.file("table1.md").read_text()), paragraph(took), measured(r)])


def wrapped_notes(text: str) -> str:
    """What a program wrote, its sentences broken into lines as the pages are."""
    blocks = text.strip("\n").split("\n\n")
    return "\n\n".join(block if block.startswith("|") else paragraph(block) for block in blocks)


def tiny_model(runner: Runner) -> str:
    rows, results = [], []
    for steps in (650, 1000):
        r = trained_tiny(runner, steps)
        found = re.findall(
            r"held out, temperature 1: ([\d.]+) % correct, ([\d.]+) tokens in a chain of thought, "
            r"([\d.]+) steps and ([\d.]+) filler sentences",
            r.output,
        )[-1]
        rows.append([str(steps), *found, f"{r.seconds:.0f}"])
        results.append(r)
    header = ["`--steps`", "correct, %", "tokens in a chain of thought", "its steps", "its sentences of filler"]
    return "\n\n".join([table([*header, "seconds"], rows), measured(*results)])


def mmlu(runner: Runner) -> str:
    data = Path(os.environ.get("ATMANRL_DATA_DIR", "")) / "mmlu"
    if not os.environ.get("ATMANRL_DATA_DIR") or not (data / "test").is_dir():
        raise Failed("mmlu needs the folder mmlu/ with dev/, val/ and test/ in ATMANRL_DATA_DIR")
    model = fetch_smollm2(runner)
    options = "--steps 1 --prompts-per-step 1 --group-size 2 --no-delimiter force --eval-questions 2 --eval-samples 1"
    small = ("--max-new-tokens", "20")
    command = (runner.program("examples/mmlu_experiment"), "--model", model, "--data", str(data), *options.split())
    r = runner.run("mmlu", *command, out="--out", quick=small)
    masks = re.search(r"^masks trained .*$", r.file("summary.txt").read_text(), re.M)[0]
    return "\n\n".join([indented(f"{masks}\n{peak_memory(r)}"), measured(r)])


def ablation(runner: Runner, which: str) -> str:
    small = "--prompts 6 --setting-prompts 3 --points 5".split()
    r = runner.run(f"ablation-{which}", runner.program("examples/ablation"), "--table", which, quick=small)
    rows = [line for line in r.output.splitlines() if line.startswith("|")]
    first = next(line for line in r.output.splitlines() if re.match(r"\d+ (correct )?completions ", line))
    counts = first.split(". Spread:")[0] + "."  # the page explains the columns
    return "\n\n".join([paragraph(counts), "\n".join(rows), measured(r)])


def mask_settings(runner: Runner) -> str:
    return ablation(runner, "settings")


def saliency_methods(runner: Runner) -> str:
    return ablation(runner, "methods")


def memory_rows(output: str) -> tuple[str, list[list[str]]]:
    """The fixed bytes and the rows that bench/memory prints."""
    fixed = re.search(r"^weights, master weights, gradient and moments: (.*)$", output, re.M)[1]
    kind = {"keep": "everything kept", "recompute": "recomputed"}
    rows = []
    for line in output.splitlines():
        if found := re.match(r"(f32|bf16) +(keep|recompute) +(\S+ \S+) +([\d.]+) +(\S+ \S+) +([\d.]+)$", line):
            rows.append([found[1], kind[found[2]], *found.groups()[2:]])
    return fixed, rows


def memory(runner: Runner) -> str:
    r = runner.run("memory", runner.program("bench/memory"))
    fixed, rows = memory_rows(r.output)
    header = ["keys and values", "backward", "update adds", "seconds", "sampling adds", "seconds"]
    beside = f"Beside {fixed} of weights, master weights, gradient and moments."
    return "\n\n".join([table(header, rows), paragraph(beside), measured(r)])


def phase_rows(output: str) -> list[list[str]]:
    """The phases of a benchmark of the 3B shape, and all of them together."""
    found = re.findall(r"^(.*?) +([\d.]+) s   peak (.*)$", output, re.M)
    rows = [[name.replace("|", "\\|"), seconds, peak] for name, seconds, peak in found]
    seconds, peak = re.search(r"with its model:? ([\d.]+) s, peak (\S+ \S+) of the process", output).groups()
    return [*rows, ["all", seconds, peak]]


def of_3b(runner: Runner, name: str) -> str:
    r = runner.run(name, runner.program(f"bench/{name.replace('-', '_')}"), quick=("1",))
    return "\n\n".join([table(["phase", "seconds", "peak of the process"], phase_rows(r.output)), measured(r)])


def saliency_3b(runner: Runner) -> str:
    return of_3b(runner, "saliency-3b")


def lora_3b(runner: Runner) -> str:
    return of_3b(runner, "lora-3b")


def two_processes(runner: Runner) -> str:
    command = (sys.executable, "bench/two_processes.py", "--build", runner.program(""))
    r = runner.run("two-processes", *command, quick=("--rounds", "1"))
    return "\n\n".join([r.output.strip("\n"), measured(r)])


def pictures(runner: Runner) -> None:
    """Pictures of the offline run's page, by Chromium without a window."""
    chromium = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if not chromium:
        raise Failed("the pictures are taken by chromium, which is not installed")
    page = runner.offline().file("report.html").read_text()
    first, last = page.index('<section aria-labelledby="completions">'), page.index("<header")
    opening = re.search(r"<main[^>]*>", page)
    start = opening[0] if opening and opening.start() > last else ""
    images = {
        "report.png": (page, "1240,1385"),
        "report_tokens.png": (page[:last] + start + page[first:], "1240,830"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (text, size) in images.items():
            source = Path(folder) / "page.html"
            source.write_text(text)
            made = runner.out / name
            command = [chromium, "--headless=new", "--hide-scrollbars", f"--window-size={size}", f"--screenshot={made}"]
            if os.geteuid() == 0:
                command.append("--no-sandbox")  # which root cannot have
            subprocess.run([*command, source.as_uri()], check=True, stderr=subprocess.DEVNULL, timeout=120)
            print(f"written: {made}", file=sys.stderr)
            if runner.to_page:
                shutil.copy(made, ROOT / "docs" / "images" / name)


# name: page, targets, minutes on 2 cores, what makes the block
EXPERIMENTS = {
    "offline": ("experiments.md", ["gsm8k_experiment"], 1, offline),
    "mask-scale": ("experiments.md", ["gsm8k_experiment"], 2, mask_scale),
    "learning-rate": ("experiments.md", ["gsm8k_experiment"], 2, learning_rate),
    "tiny-model": ("experiments.md", ["train_tiny"], 8, tiny_model),
    "warm-up": ("experiments.md", ["train_tiny", "gsm8k_experiment"], 6, warm_up),
    "table1": ("experiments.md", ["reproduce_table1"], 40, table1),
    "smollm2": ("experiments.md", ["gsm8k_experiment"], 6, smollm2),
    "mmlu": ("experiments.md", ["mmlu_experiment"], 2, mmlu),
    "mask-settings": ("ablation.md", ["ablation"], 5, mask_settings),
    "saliency-methods": ("saliency.md", ["ablation"], 5, saliency_methods),
    "memory": ("memory.md", ["memory"], 1, memory),
    "saliency-3b": ("memory.md", ["saliency_3b"], 1, saliency_3b),
    "lora-3b": ("lora.md", ["lora_3b"], 6, lora_3b),
    "two-processes": ("performance.md", ["phases"], 4, two_processes),
    "pictures": ("images", ["gsm8k_experiment"], 1, pictures),
}


def marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def page_of(name: str) -> Path:
    return ROOT / "docs" / EXPERIMENTS[name][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments; all of them when none is named")
    parser.add_argument("--list", action="store_true", help="prints the names, their pages and minutes on two cores")
    parser.add_argument("--markdown", action="store_true", help="writes each table into its page when it is there")
    parser.add_argument("--stored", action="store_true", help="measures nothing: the tables of the latest results")
    parser.add_argument("--resume", action="store_true", help="table1 goes on from the arms that are finished")
    parser.add_argument("--quick", action="store_true", help="smallest settings: does everything work?")
    parser.add_argument("--build", type=Path, help="a configured build folder (default: build/release, which is made)")
    parser.add_argument("--no-build", action="store_true", help="takes the programs as they are there")
    parser.add_argument("--out", type=Path, help="folder of the results (default: runs/experiments)")
    given = parser.parse_args()
    for name in given.names:
        if name not in EXPERIMENTS:
            parser.error(f"there is no experiment {name}; there are {', '.join(EXPERIMENTS)}")
    names = given.names or list(EXPERIMENTS)
    if given.list:
        for name in names:
            page, _, minutes, _ = EXPERIMENTS[name]
            print(f"{name:18} docs/{page:16} {minutes:3} min")
        return
    if given.quick and given.markdown:
        parser.error("--quick measures nothing that belongs into a page")
    if given.no_build and given.markdown and not given.stored:
        parser.error("--no-build: nobody knows which code the programs are of, so their figures belong into no page")
    for name in names if given.markdown else []:
        if name != "pictures":
            report.replace_block(page_of(name).read_text(), "", *marks(name))  # complains before hours are spent

    build = (given.build or ROOT / "build" / "release").resolve()
    if not given.no_build and not given.stored:
        if not given.build:
            subprocess.run(["cmake", "--preset", "release"], cwd=ROOT, check=True, stdout=sys.stderr)
        targets = dict.fromkeys(t for name in names for t in EXPERIMENTS[name][1])
        subprocess.run(["cmake", "--build", str(build), "--target", *targets], check=True, stdout=sys.stderr)
    default = ROOT / "runs" / ("experiments-quick" if given.quick else "experiments")
    runner = Runner(build, (given.out or default).resolve(), given.quick, given.stored, given.markdown, given.resume)
    failed = []
    for name in names:
        try:
            block = EXPERIMENTS[name][3](runner)
        except (Failed, OSError, subprocess.SubprocessError) as problem:  # the others need not wait for another day
            failed.append(f"experiments: {name}: {problem}")
            print(failed[-1], file=sys.stderr)
            continue
        if block is None:
            continue
        print(f"\n## {name}\n\n{block}", flush=True)
        if given.markdown:
            page = page_of(name)
            page.write_text(report.replace_block(page.read_text(), block, *marks(name)))
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
