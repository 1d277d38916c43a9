#!/usr/bin/env python3
"""Seconds and memory that the compiler takes for a unit, one after another on one core, without a cache.

The units are one that only includes each umbrella header, and the example programs that are named, each with the headers
alone and as a program that links atmanrl::compiled; then the units of that library. The command is the one that the build
uses for examples/custom_reward.cpp. `--headers` measures each library header alone instead.
"""

import argparse
import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path


LINKED = "-DATMANRL_COMPILED"  # what linking atmanrl::compiled adds


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


def measure(command: list[str], source: Path) -> tuple[float, float]:
    """Processor seconds, user and system, and the peak of resident memory in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*command, "-o", f"{folder}/unit.o", "-c", str(source)]
        child = subprocess.Popen(arguments, env={**os.environ, "CCACHE_DISABLE": "1"})
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if status != 0:
        raise SystemExit(f"{source} does not compile")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=root / "build" / "release", help="a configured build folder")
    parser.add_argument("--headers", action="store_true", help="each header alone, the heaviest first")
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
        if given.headers:
            headers = [h for h in sorted((include / "atmanrl").rglob("*.hpp")) if "cuda" not in h.parts]
            table("headers alone", alone, [including(h) for h in headers], heaviest_first=True)
            return
        units = [including(h) for h in sorted((include / "atmanrl").glob("*.hpp")) if h.stem != "cuda"]
        units += [(f"examples/{p}.cpp", root / "examples" / f"{p}.cpp") for p in given.programs]
        table("headers alone", alone, units)
        table("with atmanrl::compiled", linked, units)
        sources = sorted((root / "cmake" / "compiled").glob("*.cpp"))
        table("the library itself, once", linked, [(s.relative_to(root).as_posix(), s) for s in sources], total=True)


if __name__ == "__main__":
    main()
