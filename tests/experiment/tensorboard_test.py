#!/usr/bin/env python3
"""What TensorBoard's own reader sees of a run that was killed and continued: metrics.jsonl, each step once.

  tensorboard_test.py PROGRAM WORK    PROGRAM: gsm8k_experiment

The tensorboard package is put into a virtual environment below WORK, once; without it (no network) the status is 77.
"""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPTIONS = ["--prompts-per-step", "2", "--group-size", "2", "--max-new-tokens", "24", "--eval-questions", "2",
           "--eval-samples", "1", "--mask-steps", "2", "--steps", "5", "--checkpoint-every", "2"]


def python_with_tensorboard(work):
    try:
        import tensorboard  # noqa: F401
        return sys.executable
    except ImportError:
        pass
    python = work / "environment" / "bin" / "python"
    has = [str(python), "-c", "import tensorboard"]
    if python.exists() and subprocess.run(has, stderr=subprocess.DEVNULL).returncode == 0:
        return str(python)
    shutil.rmtree(work / "environment", ignore_errors=True)
    for command in ([sys.executable, "-m", "venv", str(work / "environment")],
                    [str(python), "-m", "pip", "-q", "install", "--disable-pip-version-check", "tensorboard>=2.15"], has):
        if subprocess.run(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=300).returncode:
            print("the tensorboard package cannot be installed here: skipped")
            sys.exit(77)
    return str(python)


def run(program, arguments, status=0):
    done = subprocess.run([program, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == status, done.stdout


def seen_by_tensorboard(out):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    reader = EventAccumulator(str(out), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def check(out):
    seen = seen_by_tensorboard(out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    expected = {}
    for line in lines:
        for name, value in line.items():
            if isinstance(value, (int, float)) and name != "step":
                expected.setdefault(f"train/{name}", []).append((line["step"], value))
    for when, step in (("before", 0), ("after", 5)):
        evaluation = json.loads((out / f"evaluation_{when}.json").read_text())
        for name in ("accuracy_strict", "accuracy_flexible", "cot_tokens", "truncated"):
            expected.setdefault(f"eval/{name}", []).append((step, evaluation[name]["value"]))
    assert {tag for tag in seen if tag.startswith("train/")} == {tag for tag in expected if tag.startswith("train/")}
    for tag, points in expected.items():
        assert [step for step, _ in seen[tag]] == [step for step, _ in points], (tag, seen[tag])
        for (_, a), (_, b) in zip(seen[tag], points):
            assert math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12), (tag, a, b)
    assert "train/reward" in expected and "train/completions/mean_length" in expected


def main():
    if sys.argv[1] == "--check":
        return check(pathlib.Path(sys.argv[2]))
    program, work = sys.argv[1], pathlib.Path(sys.argv[2]).absolute()
    work.mkdir(parents=True, exist_ok=True)
    python = python_with_tensorboard(work)
    out = work / "run"
    shutil.rmtree(out, ignore_errors=True)
    run(program, ["--model", ROOT / "examples/models/tiny", *OPTIONS, "--out", out])
    # As if killed after the last step: its checkpoint is not there yet, and half of a record is.
    (out / "checkpoints/step-000005.checkpoint").unlink()
    for name in ("evaluation_after.json", "summary.txt"):
        (out / name).unlink()
    [events] = out.glob("events.out.tfevents.*")
    os.truncate(events, events.stat().st_size - 7)
    run(program, ["--resume", out])
    subprocess.run([python, __file__, "--check", str(out)], check=True)
    print("TensorBoard reads what the run wrote")


if __name__ == "__main__":
    main()
