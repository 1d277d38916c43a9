"""Medians, ratios and tables of bench/compare.sh, and what bench/experiments.py shares with it; needs Python alone."""

import pathlib
import platform
import re
import statistics
import subprocess


def machine():
    """The processor, its cores and the vector instructions that matter here."""
    info = pathlib.Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""

    def field(name):
        found = re.search(rf"^{name}\s*: (.*)$", text, re.M)
        return found.group(1) if found else "?"

    flags = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if re.search(rf"\b{f}\b", text)]
    name = (
        f"{field('model name')} (family {field('cpu family')}, model {field('model')})"
        if text
        else platform.processor()
    )
    return f"{name}, {text.count('processor') or '?'} cores, {' '.join(flags)}"


def first_line(*command, cwd):
    """Of what a command prints; ? where it fails or prints nothing."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else "?"


def commit(root, *code):
    """The last commit that changed the code that is measured: a new page or script changes nothing."""
    changed = first_line("git", "status", "--porcelain", "--", *code, cwd=root) != "?"
    return first_line("git", "log", "-1", "--format=%h", "--", *code, cwd=root) + (" with changes" if changed else "")


def cost(case, result):
    """Seconds of the work, per token where the unit is tokens per second."""
    return result["seconds"] / result["tokens"] if case.unit == "tok/s" else result["seconds"]


def ratios(ratio, cases, rounds):
    """How many times faster `ratio.fast` was in each round.
    rounds  for each round: case name -> result"""
    return [cost(cases[ratio.slow], r[ratio.slow]) / cost(cases[ratio.fast], r[ratio.fast]) for r in rounds]


def shown(case, seconds_or_cost):
    return f"{1 / seconds_or_cost:.0f}" if case.unit == "tok/s" else f"{seconds_or_cost:.3g}"


def spread(values, form="{:.2f}"):
    """Median, and least to greatest."""
    return form.format(statistics.median(values)), f"{form.format(min(values))} – {form.format(max(values))}"


def reached(value, wanted, at_most=False):
    if wanted is None:
        return ""
    sign = "≤" if at_most else "≥"
    return f"{sign} {wanted:g} {'yes' if (value <= wanted if at_most else value >= wanted) else 'no'}"


def ratio_rows(phases, results):
    for phase in phases:
        stored = results.get(f"{phase.name}/{phase.weights}")
        if not stored:
            continue
        cases = {c.name: c for c in phase.cases}
        for ratio in phase.ratios:
            values = ratios(ratio, cases, stored["rounds"])
            median, range_ = spread(values)
            yield phase.title, phase.weights, ratio.title, median, range_, reached(
                statistics.median(values), ratio.wanted
            )


def figure_rows(phases, results):
    for phase in phases:
        stored = results.get(f"{phase.name}/{phase.weights}")
        if not stored:
            continue
        for case in (c for c in phase.cases if c.timed):
            costs = [cost(case, r[case.name]) for r in stored["rounds"]]
            values = [1 / c for c in costs] if case.unit == "tok/s" else costs
            median, range_ = spread(
                values, "{:.0f}" if case.unit == "tok/s" else "{:.3g}" if max(values) < 100 else "{:.0f}"
            )
            yield (
                phase.title,
                phase.weights,
                case.name,
                f"{median} {case.unit}",
                range_,
                reached(statistics.median(values), case.limit, at_most=case.unit == "s"),
            )


def markdown_table(header, rows):
    rows = list(rows)
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def text_table(header, rows):
    rows = [header] + list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)


RATIO_HEADER = ("work", "weights", "against", "times as fast", "least – greatest", "wanted")
FIGURE_HEADER = ("work", "weights", "tool", "median", "least – greatest", "wanted")


def replace_block(text, block, begin="<!-- compare: begin -->", end="<!-- compare: end -->"):
    """The text between the two marks of a page becomes `block`."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the page must have one line {begin} and one line {end} below it")
    return text[: text.index(begin) + len(begin)] + "\n" + block.strip("\n") + "\n" + text[text.index(end) :]
