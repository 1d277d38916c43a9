#!/usr/bin/env python3
"""Checks of the source tree that need no compiler: layout.py CHECK... --root DIR [--expect FILE].

Every complaint is a line `CHECK: file: sentence`. With --expect the complaints must be exactly the lines of FILE: that
is how the checks themselves are tested, on a tree that breaks every rule.
"""
import argparse
import pathlib
import re
import sys

# A header includes its own folder and folders of a lower rank (docs/architecture.md).
RANKS = {"core": 0, "backend": 1, "attention": 2, "comm": 2, "io": 2, "text": 3, "ops": 3, "counting": 4, "cpu": 4,
         "cuda": 4, "optim": 4, "nn": 5, "tasks": 5, "saliency": 6, "rl": 7, "evaluation": 8, "experiment": 9, "report": 10,
         "testing": 10}
# Packages that only some folders may include: they cost compile time, or belong to one part.
PACKAGES = [
    (r"(unsupported/)?Eigen/", {"cpu"}),
    (r"nlohmann/", {"io", "text", "tasks", "experiment", "report"}),
    (r"pcre2", {"text"}),
    (r"utf8proc", {"text"}),
    (r"xxhash", {"io"}),
    (r"(cuda_|cublas)", {"cuda"}),
    (r"mpi\.h", {"comm"}),
    (r"nccl\.h", {"cuda"}),
    (r"(CLI/|CLI11|catch2/|benchmark/)", set()),
]
# Macros outside core/config.hpp: those that a package's header asks for before it is included.
MACROS_ASKED_FOR = {"PCRE2_CODE_UNIT_WIDTH": "text"}
# The umbrella header of each folder that holds parts to choose from: whoever includes it can name every one of them.
UMBRELLAS = {"attention": "saliency.hpp", "comm": "comm.hpp", "nn": "llama.hpp", "optim": "grpo.hpp", "rl": "grpo.hpp",
             "saliency": "saliency.hpp", "tasks": "experiment.hpp", "testing": "testing.hpp"}
# What is read without atmanrl::compiled alone: the inside of a run's page, a sixth of what such a program compiles, and
# that of the interpreter of chat templates.
READ_WITH_BODIES = {"report/run_page.hpp", "text/jinja/program.hpp"}
# How many other headers of ours a header reads at most, directly or not. A reward is what most users write: its unit
# takes what a reward is and no model, backend or reader of files.
READS_AT_MOST = {"rl/rewards/correct_answer.hpp": 12}
NOT_OURS = {".git", "build", "data", "runs", "__pycache__"}


def headers_of(root):
    top = root / "include" / "atmanrl"
    return sorted(p for p in top.rglob("*") if p.suffix in (".hpp", ".cuh")), top


def folder_of(path, top):
    parts = path.relative_to(top).parts
    return parts[0] if len(parts) > 1 else None  # None: an umbrella header


def layering(root):
    files, top = headers_of(root)
    for path in files:
        name, folder = path.relative_to(top), folder_of(path, top)
        if folder is not None and folder not in RANKS:
            yield name, f"folder {folder}/ has no rank"
            continue
        for kind, target in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(), re.M):
            if kind == '"':
                yield name, f'includes "{target}"; write <atmanrl/...> or <package/...>'
                continue
            for pattern, allowed in PACKAGES:
                if re.match(pattern, target) and folder not in allowed:
                    yield name, f"may not include <{target}>"
            if not target.startswith("atmanrl/"):
                continue
            parts = target.split("/")
            if folder is None:
                continue
            if len(parts) == 2:
                yield name, f"may not include the umbrella header {parts[1]}"
            elif parts[1] not in RANKS:
                yield name, f"includes {parts[1]}/, which has no rank"
            elif parts[1] != folder and RANKS[parts[1]] >= RANKS[folder]:
                yield name, f"{folder}/ (rank {RANKS[folder]}) may not include {parts[1]}/ (rank {RANKS[parts[1]]})"


def headers(root):
    files, top = headers_of(root)
    if not files:
        yield "include/atmanrl", "has no headers"
    includes = includes_of(files, top)
    for path in files:
        name, text = path.relative_to(top), path.read_text()
        if not re.search(r"^#pragma once$", text, re.M):
            yield name, "has no #pragma once"
        if not re.search(r"^/// \\file$", text, re.M):
            yield name, "has no doc comment of its own (/// \\file)"
        if re.search(r"^\s*using\s+namespace\b", text, re.M):
            yield name, "has a using-directive"
        outside = re.findall(r"^\s*(?:inline )?namespace atmanrl\b(?!::inline ATMANRL_ABI\b).*", text, re.M)
        if outside:
            yield name, f"{outside[0].strip()} is not in the version's namespace: atmanrl::inline ATMANRL_ABI"
        elif re.search(r"^\s*namespace atmanrl\b", text, re.M) and "core/config.hpp" not in reached_from(name.as_posix(), includes):
            yield name, "opens a namespace of atmanrl, and reads no core/config.hpp, which has its name"


def macros(root):
    files, top = headers_of(root)
    for path in files:
        name, folder = path.relative_to(top), folder_of(path, top)
        for macro in re.findall(r"^\s*#\s*define\s+(\w+)", path.read_text(), re.M):
            if MACROS_ASKED_FOR.get(macro) == folder and folder is not None:
                continue
            if not macro.startswith("ATMANRL_"):
                yield name, f"macro {macro} does not begin with ATMANRL_"
            elif name.as_posix() not in ("core/config.hpp", "cuda/compat.cuh", "cuda/compat.hpp"):
                yield name, f"macro {macro} belongs into core/config.hpp"


def quiet(root):
    """What a program prints and which signals it hears is the program's own (experiment/run_hooks.hpp)."""
    files, top = headers_of(root)
    for path in files:
        name = path.relative_to(top)
        code = re.sub(r"//[^\n]*", "", path.read_text())
        for word in re.findall(r"\b(fmt::print|std::(?:cout|cerr|clog|puts|printf|fputs|fprintf|perror)|stdout|stderr|printf|"
                               r"sigaction|signal\.h|csignal|std::signal)\b", code):
            yield name, f"{word}: the library prints nothing and hears no signal"


def compiled(root):
    """Bodies that the compiled library does not define would be missing in every program that links it."""
    files, top = headers_of(root)
    reached, waiting = set(), [root / "cmake" / "compiled" / "functions.cpp"]
    while waiting:
        path = waiting.pop()
        if path.is_file() and path not in reached:
            reached.add(path)
            waiting += [root / "include" / found
                        for found in re.findall(r"^\s*#\s*include\s*<(atmanrl/[^>]+)>", path.read_text(), re.M)]
    for path in files:
        if path not in reached and re.search(r"^#if ATMANRL_BODIES$", path.read_text(), re.M):
            yield path.relative_to(top), "has bodies that cmake/compiled/functions.cpp does not reach"


def conditional_lines(text):
    """(line, whether it is read only with, or only without, atmanrl::compiled) for the lines of a header."""
    conditions = []
    for line in text.split("\n"):
        word = re.match(r"\s*#\s*(if|ifdef|ifndef|endif)\b(.*)", line)
        if word and word[1] == "endif":
            conditions and conditions.pop()
        elif word:
            conditions.append(bool(re.search(r"ATMANRL_(BODIES|COMPILED)", word[2])))
        yield line, any(conditions)


def includes_of(files, top):
    """The headers of ours that each header names."""
    return {path.relative_to(top).as_posix():
            re.findall(r"^\s*#\s*include\s*<atmanrl/([^>]+)>", path.read_text(), re.M) for path in files}


def reached_from(header, includes):
    """The header and all that it includes, directly or not; `includes` is the list of each header's."""
    reached, waiting = set(), [header]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += includes.get(name, [])
    return reached


def reading(root):
    """Headers that stay small for those who include them."""
    files, top = headers_of(root)
    includes = includes_of(files, top)
    for name, most in READS_AT_MOST.items():
        count = len(reached_from(name, includes)) - 1
        if name not in includes:
            yield name, "has a limit of headers that it reads, and does not exist"
        elif count > most:
            yield name, f"reads {count} other headers, {most} at most"


def umbrellas(root):
    """A folder's umbrella header reaches all of its headers, and names do not come and go with atmanrl::compiled."""
    files, top = headers_of(root)
    includes = {}
    for path in files:
        name = path.relative_to(top).as_posix()
        includes[name], unseen, inside_detail = [], [], False
        read = list(conditional_lines(path.read_text()))
        declared = "\n".join(line for line, conditional in read if not conditional)
        for line, conditional in read:
            if found := re.match(r"\s*#\s*include\s*<atmanrl/([^>]+)>", line):
                if not conditional:
                    includes[name].append(found[1])
                elif name not in READ_WITH_BODIES:
                    yield name, f"includes {found[1]} only with, or only without, atmanrl::compiled"
            if not conditional:
                continue
            if found := re.match(r"(inline )?namespace ([\w: ]+) \{", line):
                inside_detail = "detail" in found[2]
            elif line.startswith("}  // namespace"):
                inside_detail = False
            elif not inside_detail and re.match(r"(struct|class|enum|inline|constexpr|ATMANRL_INLINE|\[\[)", line):
                words = re.findall(r"(\w+)\(", line) or re.findall(r"(\w+) ?(?:[{=;]|$)", line)
                if words and not re.search(rf"\b{words[0]}\b", declared):
                    unseen.append(words[0])
        if name not in READ_WITH_BODIES:
            for word in unseen:
                yield name, f"{word} is not declared for programs that link atmanrl::compiled"

    for folder, umbrella in UMBRELLAS.items():
        reached = reached_from(umbrella, includes)
        for name in includes:
            if name.startswith(folder + "/") and name not in reached:
                yield name, f"is not reached from {umbrella}, the umbrella of {folder}/"


def words(root):
    wrong = re.compile(r"\b(TODO|FIXME|XXX|not implemented|stub)\b", re.I)
    for folder in ("include", "examples", "bench"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".hpp", ".cuh", ".cpp", ".cu"):
                for found in wrong.findall(path.read_text()):
                    yield path.relative_to(root), f"holds the word {found}"


def inline_ptx(root):
    """The CUDA backend has inline PTX in one header, whose instructions have twins in the emulation."""
    for path in sorted((root / "include" / "atmanrl" / "cuda").glob("*")):
        if path.name != "instructions.cuh" and re.search(r"\basm\b", path.read_text()):
            yield path.relative_to(root / "include" / "atmanrl"), "has inline PTX, which belongs into cuda/instructions.cuh"


def lines(root):
    """Lines of 120 characters at most, except for what cannot be broken: long literals and links, tables, quoted output.

    What a program wrote, in docs/results/, is nobody's to break."""
    unbreakable = re.compile(r'R"|"[^"]{50,}|https?://\S{50,}|\S{80,}|clang-format off|^// expect:')
    bad_tree = root / "tests" / "lint" / "bad_tree"
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if NOT_OURS & set(parts[:-1]) or bad_tree in path.parents or path.suffix not in (".hpp", ".cuh", ".cpp", ".cu", ".md"):
            continue
        if parts[:2] == ("docs", "results"):
            continue
        fenced = False
        for number, line in enumerate(path.read_text().split("\n"), 1):
            if path.suffix == ".md":
                fenced ^= line.startswith("```")
                if fenced or line.startswith(("|", "!", "    ", "<!--")):
                    continue
            if len(line) > 120 and not unbreakable.search(line):
                yield path.relative_to(root), f"line {number} has {len(line)} characters"


def orphans(root):
    """Lines of comments that a formatter left short when it broke the line before them anew.

    One word between two lines of a paragraph; a line that ends before column 60 amid a sentence, while the next one
    goes on; a line of a list's item that has lost its indentation. What is indented within a comment is code or a
    formula."""
    form = re.compile(r"(\s*///?)( +)(\S.*)$")
    item = re.compile(r"- |\d+\. ")
    apart = re.compile(r"[-*|\\]|\d+\. |\[/?\w+\]$")  # lists, tables, commands of Doxygen, marks of quoted code
    bad_tree = root / "tests" / "lint" / "bad_tree"
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if NOT_OURS & set(parts[:-1]) or bad_tree in path.parents or path.suffix not in (".hpp", ".cuh", ".cpp", ".cu"):
            continue
        lines = [form.match(line) for line in path.read_text().split("\n")]

        def goes_on(first, second):  # two lines of one paragraph
            return first and second and first[1] == second[1] and first[2] == second[2] == " " and not apart.match(second[3])

        list_at = None  # the column of the item that the lines before belong to
        for number, (before, line, after) in enumerate(zip([None, *lines], lines, [*lines[1:], None]), 1):
            if not line:
                list_at = None
                continue
            column = len(line[1] + line[2])
            lost = list_at is not None and column <= list_at and len(line[2]) > 1 and not item.match(line[3])
            if item.match(line[3]):
                list_at = column
            elif list_at is not None and column <= list_at:
                list_at = None
            short = goes_on(line, after) and not apart.match(line[3]) and (
                len(line[0]) < 60 and not re.search(r"[.:;!?][)\"']?$", line[3]) or
                " " not in line[3] and goes_on(before, line) and before[3] != "\\file")
            if lost or short:
                yield path.relative_to(root), f'line {number} is left over from another width: "{line[3]}"'


def units(root):
    """Files of tests are compiled several to a unit, in any order: the namespaces that one of them opens before its own
    are open for all after it, where their names may be ambiguous."""
    bad_tree = root / "tests" / "lint" / "bad_tree"
    for path in sorted((root / "tests").rglob("*_test.cpp")):
        before_namespaces = re.split(r"^namespace ", path.read_text(), maxsplit=1, flags=re.M)[0]
        for name in re.findall(r"^using namespace ([\w:]+);", before_namespaces, re.M):
            if bad_tree not in path.parents and name not in ("atmanrl", "atmanrl_test", "std::string_literals"):
                yield path.relative_to(root), f"using namespace {name}: move it into the file's own namespace"


def paths(root):
    personal = re.compile(rb"(?<![\w.~-])/(?:home|root|work|Users)/\w[^\s\"']*")
    bad_tree = root / "tests" / "lint" / "bad_tree"
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if NOT_OURS & set(parts[:-1]) or parts == (".git",) or bad_tree in path.parents or not path.is_file() or path.is_symlink():
            continue
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for found in sorted(set(personal.findall(content))):
            yield path.relative_to(root), f"holds the path {found.decode(errors='replace')} of somebody's machine"


def quoted(root, source, part):
    """The text that a block marked `<!-- source:part -->` must be, or a complaint."""
    path = root / source
    if not path.is_file():
        return None, f"quotes {source}, which does not exist"
    text = path.read_text()
    if part:
        match = re.search(rf"^[ \t]*// \[{re.escape(part)}\]\n(.*?)^[ \t]*// \[/{re.escape(part)}\]$", text, re.M | re.S)
        if not match:
            return None, f"quotes {source}:{part}, which is not marked there"
        text = match[1]
    return text, None


def readme(root):
    readme_path = root / "README.md"
    if readme_path.is_file():
        blocks = re.findall(r"(?:^<!-- [^\n]*-->\n)?^```cpp\n", readme_path.read_text(), re.M)
        for block in blocks:
            if not block.startswith("<!-- "):
                yield "README.md", "has a C++ block that is not quoted from examples/"
    for path in [readme_path, *sorted((root / "docs").rglob("*.md"))]:
        if not path.is_file():
            continue
        name, text = path.relative_to(root), path.read_text()
        marks = re.findall(r"^<!-- (examples/[^\s:]+)(?::(\S+))? -->$", text, re.M)
        blocks = re.findall(r"^<!-- (examples/[^\s:]+)(?::(\S+))? -->\n```[a-z+]*\n(.*?)^```$", text, re.M | re.S)
        if len(marks) != len(blocks):
            yield name, "has a quotation mark without a fenced block right below it"
        for source, part, block in blocks:
            text, complaint = quoted(root, source, part)
            if complaint:
                yield name, complaint
            elif text != block:
                yield name, f"its block is not equal to {source}{':' + part if part else ''}"


def headings(page):
    """What a link can name behind the # of a page: its headings, as GitHub spells them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.M)}


def equations(root):
    """The numbers of the equations that docs/method.md defines: (M1) at the end of an indented line."""
    page = root / "docs" / "method.md"
    text = page.read_text() if page.is_file() else ""
    return set(re.findall(r"^ {4}.*\((M\d+)\)(?:, paper: eq\. \d)?$", text, re.M))


def references(root):
    """Pages, their headings, equations and source files that comments, messages and pages name are there. Each equation
    of docs/method.md is named by a header."""
    cited = set()
    for path in root.rglob("include/atmanrl/**/*.hpp"):
        for first, last in re.findall(r"\((M\d+)\)(?: to\s+(?://+\s*)?\((M\d+)\))?", path.read_text()):
            cited.update(f"M{i}" for i in range(int(first[1:]), int((last or first)[1:]) + 1))
    for number in sorted(equations(root) - cited):
        yield pathlib.PurePath("docs/method.md"), f"numbers an equation ({number}) that no header names"
    sources = {".hpp", ".cuh", ".cpp", ".cu", ".md", ".py", ".sh"}
    bad_tree = root / "tests" / "lint" / "bad_tree"
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if NOT_OURS & set(parts[:-1]) or bad_tree in path.parents or path.suffix not in sources or not path.is_file():
            continue
        text = re.sub(r'"\s*\n\s*"', "", path.read_text())  # a message may go on in the next line
        if path.suffix == ".md":
            for file, heading in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", text):
                page = path.parent / file if file else path
                if not page.exists():
                    yield path.relative_to(root), f"links to {file}, which does not exist"
                elif heading and heading not in headings(page):
                    yield path.relative_to(root), f"links to {file}#{heading}, but the page has no such heading"
        for name in re.findall(r"(?<![\w./-])((?:docs|examples|tests|cmake|bench)/[\w./-]+\.(?:hpp|cpp|cu|md|py|sh|cmake))\b(?! of )",
                               text):
            if not re.search(r"\b[A-Z_]{4,}\b", name) and not (root / name).is_file():
                yield path.relative_to(root), f"names {name}, which does not exist"
        for page, heading in re.findall(r"(?<![\w./-])(docs/\w+\.md)#([\w-]+)", text):
            if (root / page).is_file() and heading not in headings(root / page):
                yield path.relative_to(root), f"names {page}#{heading}, but the page has no such heading"
        numbers = equations(root)
        for group in re.findall(r"docs/method\.md,\s+(?://+\s*)?((?:\(M\d+\)(?:,| and| to)?\s*)+)", text):
            for number in re.findall(r"\((M\d+)\)", group):
                if number not in numbers:
                    yield path.relative_to(root), f"names equation ({number}), which docs/method.md has not"
        for found in re.findall(r"docs/\w+\.md, section \d+", text):
            yield path.relative_to(root), f"names {found}, but sections have no numbers: write #heading"


def strangers(root):
    """Each concept in the table of slots of docs/extending.md has a type of its own in tests/strangers.hpp."""
    page, name = root / "docs" / "extending.md", pathlib.PurePath("docs/extending.md")
    table = page.is_file() and re.search(r"^\| slot \| concept \|.*\n\|[-| ]+\n((?:\|.*\n)+)", page.read_text(), re.M)
    if not table:
        yield name, "has no table of slots and concepts"
        return
    path = root / "tests" / "strangers.hpp"
    asserted = set()
    for assertion in re.findall(r"^static_assert\((.*?)\);$", path.read_text() if path.is_file() else "", re.M | re.S):
        asserted.update(re.findall(r"(?<![!\w:])atmanrl::([A-Z]\w*)<", assertion))
    for row in table[1].splitlines():
        slot, concepts = (cell.strip() for cell in row.split("|")[1:3])
        named = re.findall(r"`([A-Z]\w*)`", concepts)
        if not named:
            yield name, f"names no concept for the slot {slot}"
        for concept in named:
            if concept not in asserted:
                yield name, f"names {concept} for the slot {slot}, but tests/strangers.hpp asserts it of no type"


CHECKS = {check.__name__: check for check in (layering, headers, macros, quiet, compiled, reading, umbrellas, words,
                                           inline_ptx, lines, orphans, units, paths, readme, references, strangers)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checks", nargs="+", choices=CHECKS)
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--expect", type=pathlib.Path)
    options = parser.parse_args()
    complaints = [f"{check}: {pathlib.PurePath(name).as_posix()}: {sentence}"
                  for check in options.checks for name, sentence in CHECKS[check](options.root)]
    if options.expect:
        expected = options.expect.read_text().splitlines()
        for line in sorted(set(expected) - set(complaints)):
            print("not found:", line)
        for line in sorted(set(complaints) - set(expected)):
            print("not expected:", line)
        return 0 if sorted(expected) == sorted(complaints) else 1
    print("\n".join(complaints) if complaints else "nothing to complain about")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
