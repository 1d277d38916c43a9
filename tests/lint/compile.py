#!/usr/bin/env python3
"""Checks that compile something in the way in which a user's unit is compiled.

compile.py headers --root include --out DIR     each header of atmanrl/ compiles as the only include of a unit (chains())
compile.py error FILE.cpp --expect REGEX        FILE.cpp does not compile, and the compiler's text matches REGEX
both with  --commands compile_commands.json --unit UNIT.cpp: UNIT's command in that file is the one that is used,
after the words of --launcher (ccache: not optimised objects instead of a mere syntax check, but cached ones)
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys


def command_of(options):
    """The command and folder in which the unit would be compiled, without its input and output, and not optimised."""
    for entry in json.loads(options.commands.read_text()):
        if pathlib.Path(entry["file"]) == options.unit:
            words = shlex.split(entry["command"])
            kept, skip = [], False
            for word in words:
                if skip or word in ("-c", entry["file"], "-MD", "-MMD"):
                    skip = False
                elif word in ("-o", "-MT", "-MF"):
                    skip = True
                else:
                    kept.append(word)
            return [*options.launcher, *kept, "-O0"], entry["directory"]
    sys.exit(f"{options.commands} has no command for {options.unit}")


def compile_unit(command, directory, source, output):
    done = subprocess.run([*command, "-c", source, "-o", output], cwd=directory, capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C"})
    return done.returncode == 0, done.stdout + done.stderr


def chains(root, names):
    """The headers as lists, each of which one unit includes from left to right; every header is in one list.

    A header may stand left of one that includes it, directly or not, before its own first line of code: the right one
    reads it first in any case, so it sees nothing that it would not see alone, and where each compiles behind its left
    neighbour, each compiles alone. A unit takes what its last header takes, so the long ones swallow the short ones.
    """
    text = {name: (root / name).read_text() for name in names}
    first_lines, everywhere = {}, {}
    for name in names:
        first_lines[name], everywhere[name], depth, code = set(), set(), 0, False
        for line in re.sub(r"/\*.*?\*/", "", text[name], flags=re.S).splitlines():
            if found := re.match(r'\s*#\s*include\s*[<"](atmanrl/[^>"]+)[>"]', line):
                if depth == 0 and found[1] in text:  # one behind an #if may not be read
                    everywhere[name].add(found[1])
                    if not code:
                        first_lines[name].add(found[1])
                continue
            depth += bool(re.match(r"\s*#\s*if", line)) - bool(re.match(r"\s*#\s*endif", line))
            code = code or not re.match(r"\s*($|//|#\s*pragma once|#\s*include)", line)

    def reached(start):
        found, waiting = set(), list(start)
        while waiting:
            if (name := waiting.pop()) not in found:
                found.add(name)
                waiting += everywhere[name]
        return found

    read_before = {name: reached(first_lines[name]) for name in names}
    size = {name: len(text[name]) + sum(len(text[other]) for other in read_before[name]) for name in names}
    left, result = sorted(names, key=lambda name: (size[name], name), reverse=True), []
    while left:
        chain = []
        for name in left:
            if not chain or name in read_before[chain[0]]:
                chain.insert(0, name)
        left = [name for name in left if name not in chain]
        result.append(chain)
    return result


def headers(options):
    command, directory = command_of(options)
    # The tree that is checked comes first, so that a test tree is not served from the real one.
    first_option = next(i for i, word in enumerate(command) if word.startswith("-"))
    command.insert(first_option, f"-I{options.root}")
    options.out.mkdir(parents=True, exist_ok=True)
    names = sorted(p.relative_to(options.root).as_posix() for p in (options.root / "atmanrl").rglob("*.hpp"))
    names = [name for name in names if not re.match(r"atmanrl/(cuda(/|\.hpp$)|comm/mpi\.hpp$)", name) and re.match(options.only, name)]
    command += [f"-D{macro}" for macro in options.define]
    if not names:
        sys.exit(f"no headers in {options.root}")

    def compiles(chain):
        source = options.out / (chain[-1].replace("/", ".") + ".cpp")
        text = "".join(f"#include <{name}>\n" for name in chain)
        if not source.is_file() or source.read_text() != text:
            source.write_text(text)
        return compile_unit(command, directory, str(source), str(source.with_suffix(".o")))

    def check(chain):
        """The headers that do not compile alone, each with the compiler's text."""
        ok, text = compiles(chain)
        if ok:
            return []
        failed = [(name, text) for name in chain for ok, text in [compiles([name])] if not ok]
        return failed or [(" after ".join(reversed(chain)), text)]

    units = [[name] for name in names] if options.each else chains(options.root, names)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        failed = [failure for failures in pool.map(check, units) for failure in failures]
    for name, text in failed:
        print(f"{name} does not compile alone:\n{text}")
    print(f"{len(names) - len(failed)} of {len(names)} headers compile alone, in {len(units)} units")
    return 1 if failed else 0


def error(options):
    command, directory = command_of(options)
    ok, text = compile_unit(command, directory, str(options.file), os.devnull)
    if ok:
        print(f"{options.file} compiles, but must not")
    elif not re.search(options.expect, text):
        print(f"{options.file} does not compile, but the text does not match {options.expect}:\n{text}")
    else:
        return 0
    return 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--commands", type=pathlib.Path, required=True)
    parser.add_argument("--unit", type=pathlib.Path, required=True)
    parser.add_argument("--launcher", default="", type=str.split)
    checks = parser.add_subparsers(required=True)
    one = checks.add_parser("headers")
    one.set_defaults(run=headers)
    one.add_argument("--root", type=pathlib.Path, required=True)
    one.add_argument("--out", type=pathlib.Path, required=True)
    one.add_argument("--only", default="", help="a regular expression that the names of the headers begin with")
    one.add_argument("--each", action="store_true", help="a unit for each header, which takes three times as long")
    one.add_argument("--define", action="append", default=[], metavar="MACRO")
    one.add_argument("--jobs", type=int, default=2)
    two = checks.add_parser("error")
    two.set_defaults(run=error)
    two.add_argument("file", type=pathlib.Path)
    two.add_argument("--expect", required=True)
    options = parser.parse_args()
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
