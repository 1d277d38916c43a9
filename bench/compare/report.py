"""Medians, ratios and tables of bench/compare.sh, and what bench/experiments.py shares with it; needs Python alone."""

import pathlib
import platform
import re
import statistics
import subprocess
import textwrap


def cpu_info():
    info = pathlib.Path("/proc/cpuinfo")
    return info.read_text() if info.exists() else ""


def cpu_field(text, name):
    """The first processor's; ? where there is none."""
    found = re.search(rf"^{name}\s*: (.*)$", text, re.M)
    return found.group(1).strip() if found else "?"


def family(text, architecture):
    """Processors whose figures belong into one table: amd-26, intel-6-143, arm-0x41-0xd40, or the architecture alone.

    Intel has numbered all its processors as one family since 1995, so its models count."""
    vendor, number = cpu_field(text, "vendor_id"), cpu_field(text, "cpu family")
    if vendor == "AuthenticAMD":
        return f"amd-{number}"
    if vendor == "GenuineIntel":
        return f"intel-{number}-{cpu_field(text, 'model')}"
    if cpu_field(text, "CPU implementer") != "?":
        return f"arm-{cpu_field(text, 'CPU implementer')}-{cpu_field(text, 'CPU part')}"
    return architecture


def this_family():
    return family(cpu_info(), platform.machine())


def machine():
    """The processor, its cores and the vector instructions that matter here."""
    text = cpu_info()

    def field(name):
        return cpu_field(text, name)

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


def measured(stored):
    """Names of the cases that a phase's rounds have: on some machines not all of them can be."""
    return set.intersection(*(set(r) for r in stored["rounds"]))


def ratio_rows(phases, results):
    for phase in phases:
        stored = results.get(f"{phase.name}/{phase.weights}")
        if not stored:
            continue
        cases = {c.name: c for c in phase.cases}
        for ratio in (r for r in phase.ratios if {r.fast, r.slow} <= measured(stored)):
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
        for case in (c for c in phase.cases if c.timed and c.name in measured(stored)):
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


def replace_block(text, block, begin, end):
    """The text between the two marks of a page becomes `block`."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the page must have one line {begin} and one line {end} below it")
    return text[: text.index(begin) + len(begin)] + "\n" + block.strip("\n") + "\n" + text[text.index(end) :]


def marks(family):
    """Of the block in a page that holds the tables of one family of processors."""
    return f"<!-- compare-{family}: begin -->", f"<!-- compare-{family}: end -->"


def place_block(page, block, family):
    """The page with the family's block; the blocks of others stay. A first one stands after the last of the others."""
    begin, end = marks(family)
    if begin in page or end in page:
        return replace_block(page, block, begin, end)
    others = list(re.finditer(r"<!-- compare-\S+: end -->\n", page))
    if not others:
        raise ValueError(f"the page must have a line {begin} and a line {end}, or those of another family")
    at = others[-1].end()
    return page[:at] + f"\n{begin}\n{block.strip(chr(10))}\n{end}\n" + page[at:]


def results_file(folder, family):
    return folder / "results" / f"{family}.json"


def first_results(before, family, machine, versions):
    """What a run of some phases adds to, and whether anything that was there is left out: phases that were measured apart
    belong together as long as machine and versions are the same. before  the family's latest results, or none"""
    fresh = {"family": family, "machine": machine, "versions": versions, "phases": {}}
    if before is None:
        return fresh, False
    same = all(before.get(k) == fresh[k] for k in ("family", "machine", "versions"))
    return (before, False) if same else (fresh, True)


def wrapped(text, indent=""):
    """As wide as the pages are."""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def markdown(all_phases, results):
    """The tables of one family of processors: of all phases, those of generation and quantised models among them."""
    stored = results["phases"]
    lines = [
        f"### {results['family']}",
        "",
        f"Machine: {results['machine']}.",
        "",
        wrapped(f"Versions: {results['versions']}."),
        "",
        "Measured on "
        + ", ".join(sorted({p["date"] for p in stored.values()}))
        + ", "
        + ", ".join(str(n) for n in sorted({len(p["rounds"]) for p in stored.values()}))
        + " rounds.",
        "",
        markdown_table(RATIO_HEADER, ratio_rows(all_phases, stored)),
        "",
        markdown_table(FIGURE_HEADER, figure_rows(all_phases, stored)),
        "",
        "Relative distance of what the tools computed before the clock ran, of what is allowed:",
        "",
    ]
    for phase in all_phases:
        if p := stored.get(f"{phase.name}/{phase.weights}"):
            notes = p["agreement"] + [f"{k} with {v}" for k, v in p["settings"].items()]
            lines.append(wrapped(f"- {phase.title}, {phase.weights}: " + "; ".join(notes) + ".", "  "))
    missing = [f"{p.title}, {p.weights}" for p in all_phases if f"{p.name}/{p.weights}" not in stored]
    if missing:
        lines += ["", wrapped("Not measured yet: " + "; ".join(missing) + ".")]
    return "\n".join(lines)
