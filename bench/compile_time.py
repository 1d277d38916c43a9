#!/usr/bin/env python3
"""Seconds and memory that the compiler takes for a unit, one after another on one core, without a cache.

The units are one that only includes each umbrella header, and the example programs that are named, each with the headers
alone and as a program that links atmanrl::compiled; then the units of that library. The command is the one that the build
uses for examples/custom_reward.cpp. `--headers` measures each library header alone instead; `--parts` counts what code a
program has when the headers alone are compiled; `--against COMMIT` compiles the programs from the headers of an older
commit and of this tree in turn, and prints how many times the older one's seconds and memory this tree takes.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import tempfile
from pathlib import Path


LINKED = "-DATMANRL_COMPILED"  # what linking atmanrl::compiled adds

# Parts of a program's code, each with what the names of its functions have in them.
PARTS = [
    ("products with bf16 weights", r"bf16_panel|bf16 const\*|weight_view<[^<>]*bf16>"),
    ("nlohmann-json", r"nlohmann"),
    ("multiply-add tiles", r"cpu::\w+::detail::tile<"),
    ("std::filesystem", r"std::filesystem"),
    ("learned mask", r"learned_mask"),
    ("the run's page, report/", r"atmanrl::\w+::html::"),
    ("the traits of custom_reward.cpp", r"\b(mine|brevity)\b"),
]


def compile_command(build: Path, root: Path) -> list[str]:
    """The build's own command, up to what it reads and writes."""
    wanted = root / "examples" / "custom_reward.cpp"
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if Path(entry["directory"], entry["file"]).resolve() == wanted.resolve():
            words = shlex.split(entry["command"])
            break
    else:
        raise SystemExit(f"{build}/compile_commands.json has no command for {wanted}: configure with the examples")
    if Path(words[0]).name == "ccache":
        words = words[1:]
    for option in ("-o", "-c"):
        at = words.index(option)
        del words[at : at + 2]
    if LINKED not in words:
        raise SystemExit(f"the build compiles {wanted} without {LINKED}")
    return words


def compile_unit(command: list[str], source: Path, to: Path) -> tuple[float, float]:
    """Processor seconds, user and system, and the peak of resident memory in GiB."""
    arguments = [*command, "-o", str(to), "-c", str(source)]
    child = subprocess.Popen(arguments, env={**os.environ, "CCACHE_DISABLE": "1"})
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if status != 0:
        raise SystemExit(f"{source} does not compile")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def measure(command: list[str], source: Path) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        return compile_unit(command, source, Path(folder) / "unit.o")


def print_against(command: list[str], root: Path, commit: str, programs: list[str], rounds: int) -> None:
    """Each round compiles both, one right after the other: what else runs on the machine meets both alike."""
    with tempfile.TemporaryDirectory() as folder:
        older = Path(folder) / "older"
        older.mkdir()
        archive = subprocess.run(["git", "-C", str(root), "archive", commit, "include", "examples"], check=True,
                                 capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(older)], input=archive, check=True)
        there = [word.replace(str(root), str(older)) for word in command]
        for program in programs:
            source = Path("examples") / f"{program}.cpp"
            print(f"\n{source}, headers alone: {commit}, then this tree")
            print("seconds    GiB   seconds    GiB   times the seconds, the memory")
            ratios = []
            for _ in range(rounds):
                (was, was_peak), (now, now_peak) = measure(there, older / source), measure(command, root / source)
                ratios.append((now / was, now_peak / was_peak))
                print(f"{was:7.1f}  {was_peak:5.2f}   {now:7.1f}  {now_peak:5.2f}   {ratios[-1][0]:.2f}, {ratios[-1][1]:.2f}")
            print(f"median of {rounds}: {statistics.median(r[0] for r in ratios):.2f} times the seconds, "
                  f"{statistics.median(r[1] for r in ratios):.2f} times the memory")


def functions_of(unit: Path) -> list[tuple[int, str]]:
    """Size in bytes and name of every function, once: a constructor's two symbols are one piece of code."""
    table = subprocess.run(["objdump", "--syms", "--demangle", "--wide", str(unit)], check=True, capture_output=True,
                           text=True).stdout
    found = {}
    for line in table.splitlines():
        symbol = re.match(r"([0-9a-f]+) .{5}.F (\S+)\t([0-9a-f]+) (.*)", line)
        if symbol and symbol[2] != "*UND*":
            found.setdefault((symbol[2], symbol[1]), (int(symbol[3], 16), symbol[4]))
    return list(found.values())


def print_parts(command: list[str], source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / "unit.o"
        compile_unit(command, source, unit)
        functions = functions_of(unit)
    print(f"\n{source.name}, headers alone; a function counts for every part that its name speaks of")
    print(f"{'part':36} functions     KB")
    rows = [(part, [size for size, name in functions if re.search(names, name)]) for part, names in PARTS]
    rows.sort(key=lambda row: -sum(row[1]))
    for part, sizes in [*rows, ("everything", [size for size, _ in functions])]:
        print(f"{part:36} {len(sizes):9}  {sum(sizes) / 1000:5.0f}")
    size, name = max(functions)
    print(f"the longest function has {size / 1000:.0f} KB: {name[:200]}")


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=root / "build" / "release", help="a configured build folder")
    parser.add_argument("--headers", action="store_true", help="each header alone, the heaviest first")
    parser.add_argument("--parts", action="store_true", help="the code of each program by parts of the library")
    parser.add_argument("--against", metavar="COMMIT", help="this tree's seconds and memory as multiples of COMMIT's")
    parser.add_argument("--rounds", type=int, default=3, help="how often --against compiles each of the two")
    parser.add_argument("programs", nargs="*", default=["custom_reward"], help="names of examples")
    given = parser.parse_args()
    linked = compile_command(given.build, root)
    alone = [word for word in linked if word != LINKED]
    include = root / "include"

    with tempfile.TemporaryDirectory() as folder:

        def including(header: Path) -> tuple[str, Path]:
            name = header.relative_to(include).as_posix()
            unit = Path(folder) / f"{name.replace('/', '_')}.cpp"
            unit.write_text(f"#include <{name}>\n")
            return f"#include <{name}>", unit

        def table(title: str, command: list[str], units: list[tuple[str, Path]], heaviest_first: bool = False,
                  total: bool = False) -> None:
            rows = [(name, *measure(command, unit)) for name, unit in units]
            if heaviest_first:
                rows.sort(key=lambda row: -row[1])
            print(f"\n{title:{width}}  seconds  peak GiB")
            for name, seconds, peak in rows:
                print(f"{name:{width}}  {seconds:7.1f}  {peak:8.2f}")
            if len(rows) > 1 and total:
                print(f"{'together':{width}}  {sum(row[1] for row in rows):7.1f}")

        print(shlex.join(alone))
        width = 46
        if given.against:
            print_against(alone, root, given.against, given.programs, given.rounds)
            return
        if given.headers:
            headers = [h for h in sorted((include / "atmanrl").rglob("*.hpp")) if "cuda" not in h.parts]
            table("headers alone", alone, [including(h) for h in headers], heaviest_first=True)
            return
        if given.parts:
            for program in given.programs:
                print_parts(alone, root / "examples" / f"{program}.cpp")
            return
        units = [including(h) for h in sorted((include / "atmanrl").glob("*.hpp")) if h.stem != "cuda"]
        units += [(f"examples/{p}.cpp", root / "examples" / f"{p}.cpp") for p in given.programs]
        table("headers alone", alone, units)
        for level in ("-fsyntax-only", "-O0"):  # what no change of the optimised code can go below
            table(f"headers alone, {level}", [*alone, level], units[-len(given.programs):])
        table("with atmanrl::compiled", linked, units)
        sources = sorted((root / "cmake" / "compiled").glob("*.cpp"))
        table("the library itself, once", linked, [(s.relative_to(root).as_posix(), s) for s in sources], total=True)


if __name__ == "__main__":
    main()
