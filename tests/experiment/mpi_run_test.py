#!/usr/bin/env python3
"""Whole runs of programs under mpirun: mpi_run_test.py bytes|killed|faults PROGRAMS WORK MPIRUN [OPTIONS]...

bytes: what gsm8k_experiment and sft write and print has the same bytes for 1 to 4 ranks of 1 and 2 threads.
killed: a rank is killed at a random moment, the run goes on with another number of ranks, and ends with the bytes of an
uninterrupted one; --trials of them, half with a second kill. faults: a rank that finds other files, and Ctrl-C.
PROGRAMS is the folder of the example programs, WORK an empty or missing folder.
"""
import argparse
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHORT = ["--steps", "3", "--prompts-per-step", "3", "--group-size", "3", "--max-new-tokens", "40", "--eval-questions", "3",
         "--eval-samples", "1", "--mask-steps", "3", "--validate-every", "2", "--lr", "1e-4"]
VARIANTS = {
    "masks": ["--saliency-share", "0.5"],
    "adapters": ["--lora-rank", "2", "--advantage", "gdpo", "--optimizer", "lion"],
    "reference": ["--beta", "0.1", "--advantage", "batch_normalized", "--dynamic-sampling", "2", "--dtype", "bf16"],
}
# What ranks keep of a gradient changes no byte: other choices for other numbers of them.
KEPT = {3: ["--gradient-memory", "layers"], 4: ["--gradient-memory", "slices", "--gradient-sums-on-host"]}
SKIPPED = {"timings.jsonl", "options.json", "report.html", "events.out.tfevents.0.atmanrl"}


def ranks_command(options, ranks, program, arguments):
    mpirun = [] if ranks == 0 else [*options.mpirun, "-n", str(ranks)]
    return [*mpirun, str(options.programs / program), *map(str, arguments)]


def run(options, ranks, program, arguments, status=0):
    """0 ranks: without mpirun."""
    done = subprocess.run(ranks_command(options, ranks, program, arguments), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, cwd=ROOT, timeout=300)
    if done.returncode != status:
        sys.exit(f"{program} {' '.join(map(str, arguments))} on {ranks} ranks: status {done.returncode}\n{done.stdout}")
    return done.stdout


def files_of(folder):
    """Hashes of what a run leaves behind, but for times and paths."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in SKIPPED and not name.startswith("checkpoints"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def compare(found, wanted, what):
    if found == wanted:
        return 0
    other = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    print(f"{what}: other bytes in {', '.join(other)}")
    return 1


def bytes_of_ranks(options):
    failed = runs = 0
    for name, more in VARIANTS.items():
        wanted = None
        for ranks, threads in [(0, 1), (1, 2), (2, 1), (3, 2), (4, 1)]:
            out = options.work / f"{name}-{ranks}"
            run(options, ranks, "gsm8k_experiment",
                [*SHORT, *more, *KEPT.get(ranks, []), "--threads", threads, "--out", out])
            found = files_of(out)
            wanted = wanted or found
            if not {"metrics.jsonl", "completions.jsonl", "causal.jsonl", "summary.txt"} <= found.keys() or len(found) < 8:
                sys.exit(f"{name}: the run has left {sorted(found)}")
            failed += compare(found, wanted, f"{name}, {ranks} ranks of {threads} threads")
            runs += 1
    wanted = None
    for ranks, threads in [(0, 2), (2, 1), (3, 1)]:
        out = options.work / f"sft-{ranks}"
        text = run(options, ranks, "sft", ["--task", "arithmetic", "--examples", 40, "--held-out", 8, "--batch", 8,
                                           "--micro-batches", 5, "--threads", threads, "--lr", "1e-4", "--out", out,
                                           *KEPT.get(ranks, [])])
        found = files_of(out) | {"what it prints": text}
        wanted = wanted or found
        failed += compare(found, wanted, f"sft, {ranks} ranks of {threads} threads")
        runs += 1
    print(f"{runs} runs, {failed} with other bytes")
    return failed


def processes_of(program, out):
    """The ranks of a run, by its folder on the command line."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words and words[0].endswith(b"/" + program.encode()) and str(out).encode() in words:
            found.append(int(entry.name))
    return found


def killed(options):
    whole = options.work / "whole"
    arguments = [*SHORT, *VARIANTS["masks"], "--steps", "4", "--checkpoint-every", "1", "--threads", "1"]
    began = time.monotonic()
    run(options, 2, "gsm8k_experiment", [*arguments, "--out", whole])
    seconds = time.monotonic() - began
    wanted = files_of(whole)
    chance = random.Random(options.seed)
    failed = kills = 0
    for trial in range(options.trials):
        out = options.work / f"trial-{trial}"
        counts = []
        for kill in range(1 + trial % 2):
            ranks = chance.choice([2, 3, 4])
            counts.append(ranks)
            given = ["--resume", out] if (out / "options.json").exists() else [*arguments, "--out", out]
            given = [*given, *KEPT.get(ranks, [])]
            began = time.monotonic()
            started = subprocess.Popen(ranks_command(options, ranks, "gsm8k_experiment", given), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
            time.sleep(chance.uniform(0.2, 1.0) * seconds)
            victims = processes_of("gsm8k_experiment", out)
            if victims:
                try:
                    os.kill(chance.choice(victims), signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass
            else:
                seconds *= 0.8  # the machine has become faster: the run was over
            try:
                started.wait(timeout=10 + (0 if victims else seconds))
            except subprocess.TimeoutExpired:
                started.kill()
                print(f"trial {trial}: the run had not ended 10 s after rank was killed")
                failed += 1
            for late in processes_of("gsm8k_experiment", out):  # mpirun is gone before the last of its ranks
                try:
                    os.kill(late, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            while processes_of("gsm8k_experiment", out):
                time.sleep(0.01)
        ranks = chance.choice([0, 1, 2, 3, 4])
        given = ["--resume", out] if (out / "options.json").exists() else [*arguments, "--out", out]
        run(options, ranks, "gsm8k_experiment", given)
        failed += compare(files_of(out), wanted, f"trial {trial}, killed with {counts} ranks, ended with {ranks}")
        shutil.rmtree(out)
    print(f"{options.trials} trials, {kills} kills, {failed} failed")
    if kills < options.trials / 4:
        sys.exit("too few kills hit a run: the trial is too short")
    return failed


def faults(options):
    failed = 0
    # A rank that was given something else: mpirun's "app : app" form.
    program, out = str(options.programs / "gsm8k_experiment"), options.work / "other"
    given = [*SHORT, "--out", str(out)]
    done = subprocess.run([*options.mpirun, "-n", "1", program, *given, ":", "-n", "1", program, *given, "--seed", "5"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, timeout=60)
    if done.returncode == 0 or done.stdout.count("the options: rank 1 differs from rank 0") != 1 or out.exists():
        print(f"other options: status {done.returncode}\n{done.stdout}")
        failed += 1
    # A mistake in the command line is said once.
    done = subprocess.run([*options.mpirun, "-n", "3", program, *given, "--colour", "red"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, cwd=ROOT, timeout=60)
    if done.returncode == 0 or done.stdout.count("--colour") != 1:
        print(f"unknown option: status {done.returncode}\n{done.stdout}")
        failed += 1
    # A missing model, found by all ranks, is said once.
    done = subprocess.run([*options.mpirun, "-n", "3", program, *given, "--model", "nowhere"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, cwd=ROOT, timeout=60)
    if done.returncode == 0 or done.stdout.count("nowhere") != 1 or out.exists():
        print(f"missing model: status {done.returncode}\n{done.stdout}")
        failed += 1
    # A signal to one rank, one that mpirun passes on, and Ctrl-C where mpirun was told to wait for its ranks: all finish
    # the step, and the run can go on.
    version = subprocess.run([options.mpirun[0], "--version"], stdout=subprocess.PIPE, text=True).stdout
    patient = ["--mca", "odls_base_sigkill_timeout", "10"] if "Open MPI" in version or "OpenRTE" in version else None
    for sent, name in ((signal.SIGINT, "one-rank"), (signal.SIGUSR1, "all"), (signal.SIGINT, "patient")):
        if name == "patient" and not patient:
            continue
        out = options.work / f"interrupted-{name}"
        started = subprocess.Popen([*options.mpirun, *(patient if name == "patient" else []), "-n", "2", program, *SHORT,
                                    "--steps", "500", "--out", str(out)],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        while not (out / "metrics.jsonl").exists() and started.poll() is None:
            time.sleep(0.05)
        if name != "one-rank":
            started.send_signal(sent)
        else:
            os.kill(max(processes_of("gsm8k_experiment", out)), sent)
        text, _ = started.communicate(timeout=60)
        if text.count("stopped after") != 1 or "--resume" not in text:
            print(f"{sent.name} to {name}: status {started.returncode}\n{text}")
            failed += 1
        if not list((out / "checkpoints").glob("*.checkpoint")):
            print(f"{sent.name} to {name}: no checkpoint")
            failed += 1
    print(f"{failed} faults end otherwise than they should")
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["bytes", "killed", "faults"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("programs", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("mpirun", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    options.work = options.work.resolve()
    if not (options.programs / "gsm8k_experiment").exists():
        print("gsm8k_experiment was not built: skipped")
        return 77
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    return 1 if {"bytes": bytes_of_ranks, "killed": killed, "faults": faults}[options.what](options) else 0


sys.exit(main())
