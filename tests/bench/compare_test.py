#!/usr/bin/env python3
"""The parts of bench/compare/ that need no packages."""

import contextlib
import io
import math
import pathlib
import re
import sys
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench" / "compare"))
import phases  # noqa: E402

sys.modules.setdefault("numpy", types.ModuleType("numpy"))  # what is tested of the driver compares no arrays
import compare  # noqa: E402
import report  # noqa: E402
import weights  # noqa: E402


def rotated(head, position, neighbours):
    """A head's values after rotary position embedding, of neighbours or of the two halves."""
    out, half = list(head), len(head) // 2
    for i in range(half):
        a, b = (2 * i, 2 * i + 1) if neighbours else (i, half + i)
        angle = position * 1e5 ** (-i / half)
        out[a] = head[a] * math.cos(angle) - head[b] * math.sin(angle)
        out[b] = head[a] * math.sin(angle) + head[b] * math.cos(angle)
    return out


class Weights(unittest.TestCase):
    def test_rotating_neighbours_of_the_gguf_rows_is_rotating_halves_of_the_hugging_face_rows(self):
        heads, head_dim, position = 3, 8, 7
        values = [math.sin(1 + r) for r in range(heads * head_dim)]  # a product with each row
        gguf = [values[weights.interleaved_row(r, head_dim)] for r in range(len(values))]
        for h in range(heads):
            own = slice(h * head_dim, (h + 1) * head_dim)
            wanted = rotated(values[own], position, neighbours=False)
            found = rotated(gguf[own], position, neighbours=True)
            back = [wanted[weights.interleaved_row(r, head_dim)] for r in range(head_dim)]
            for a, b in zip(found, back):
                self.assertAlmostEqual(a, b, places=14)

    def test_the_tensors_are_all_parameters_of_the_shape(self):
        self.assertEqual(sum(math.prod(shape) for _, _, shape in weights.shapes(phases.SHAPE)), 134515008)
        self.assertEqual(phases.parameter_count(), 134515008)


class Report(unittest.TestCase):
    ours = phases.Case("ours", "atmanrl", {})
    theirs = phases.Case("theirs", "PyTorch", {})
    rounds = [
        {"ours": {"seconds": s, "tokens": 100}, "theirs": {"seconds": t, "tokens": 50}}
        for s, t in [(1, 1), (2, 4), (1, 1.5)]
    ]
    phase = phases.Phase("p", "some work", "f32", [ours, theirs], [phases.Ratio("theirs", "ours", "theirs", 3)], [])

    def test_a_ratio_is_taken_within_each_round_and_per_token(self):
        found = report.ratios(self.phase.ratios[0], {c.name: c for c in self.phase.cases}, self.rounds)
        self.assertEqual(found, [2, 4, 3])

    def test_a_ratio_of_seconds_ignores_tokens(self):
        cases = {name: phases.Case(name, "atmanrl", {}, unit="s") for name in ("ours", "theirs")}
        self.assertEqual(report.ratios(self.phase.ratios[0], cases, self.rounds), [1, 2, 1.5])

    def test_the_tables_give_median_least_greatest_and_whether_it_is_enough(self):
        results = {"p/f32": {"rounds": self.rounds}}
        self.assertEqual(
            list(report.ratio_rows([self.phase], results)),
            [("some work", "f32", "theirs", "3.00", "2.00 – 4.00", "≥ 3 yes")],
        )
        self.assertEqual(
            list(report.figure_rows([self.phase], results)),
            [
                ("some work", "f32", "ours", "100 tok/s", "50 – 100", ""),
                ("some work", "f32", "theirs", "33 tok/s", "12 – 50", ""),
            ],
        )
        self.assertEqual(report.reached(2.9, 3), "≥ 3 no")
        self.assertEqual(report.reached(12.6, 12.5, at_most=True), "≤ 12.5 no")

    def test_only_the_text_between_the_marks_of_a_page_changes(self):
        begin, end = report.marks("amd-26")
        page = f"above\n{begin}\nold\n{end}\nbelow\n"
        once = report.replace_block(page, "new\n", begin, end)
        self.assertEqual(once, f"above\n{begin}\nnew\n{end}\nbelow\n")
        self.assertEqual(report.replace_block(once, "new", begin, end), once)
        with self.assertRaises(ValueError):
            report.replace_block("no marks", "new", begin, end)

    def test_generation_and_quantised_models_are_in_the_tables_of_their_family(self):
        chosen = [p for p in phases.phases() if p.name in ("generate", "decode-1-quantised", "prefill-quantised")]
        self.assertEqual([p.weights for p in chosen], ["q8_0", "q4_k_m", "q8_0", "q4_k_m", "f32"])
        stored = {}
        for i, phase in enumerate(chosen):
            timed = [c for c in phase.cases if c.timed]
            stored[f"{phase.name}/{phase.weights}"] = {
                "rounds": [{c.name: {"seconds": 1 + i + k, "tokens": 60} for k, c in enumerate(timed)}],
                "agreement": ["a and b 1e-3 of 0.1 (values)"],
                "settings": {},
                "date": "2026-01-02",
            }
        results = {"family": "amd-25", "machine": "some machine", "versions": "some versions", "phases": stored}
        text = report.markdown(phases.phases(), results)
        self.assertTrue(text.startswith("### amd-25\n\nMachine: some machine.\n\nVersions: some versions.\n"))
        for line in (
            "| decode, 1 sequence after 128 tokens | q8_0 | llama.cpp | 2.00 | 2.00 – 2.00 | ≥ 0.95 yes |",
            "| decode, 1 sequence after 128 tokens | q4_k_m | llama.cpp, with int8 products | 0.75 | 0.75 – 0.75 | ≥ 0.95 no |",
            "| prefill, 512 tokens | q8_0 | llama.cpp | 1.33 | 1.33 – 1.33 | ≥ 1 yes |",
            "| generation with sampling, 8 completions of 64 tokens after a prompt of 128 | f32 | atmanrl | 12 tok/s | 12 – 12 |  |",
        ):
            self.assertIn(line, text.split("\n"))
        self.assertIn("Not measured yet: decode, 1 sequence after 128 tokens, f32; ", text)
        self.assertNotIn("prefill, 512 tokens, q8_0; ", text.partition("Not measured yet")[2])


    def test_a_case_that_a_machine_has_not_is_left_out_with_its_ratios(self):
        rounds = [{"ours": r["ours"]} for r in self.rounds]
        results = {"p/f32": {"rounds": rounds}}
        self.assertEqual(list(report.ratio_rows([self.phase], results)), [])
        self.assertEqual([row[2] for row in report.figure_rows([self.phase], results)], ["ours"])
        whole = next(p for p in phases.phases() if p.name == "train" and p.weights == "bf16")
        by_amx = [c.name for c in whole.cases if c.optional]
        ours = ["atmanrl", "atmanrl, one prompt of 200"]
        self.assertEqual(by_amx, [f"{o}, {how} weight gradients" for how in ("split", "rounded") for o in ours])
        self.assertTrue(all(c.fields["gradients"] in c.name for c in whole.cases if c.optional))
        left = whole.without(by_amx)
        self.assertEqual([len(whole.cases), len(left.cases)], [8, 4])
        self.assertEqual([r.wanted for r in whole.ratios], [1.1, 2, 2, 1.8, 3, 1.8, 3])
        self.assertEqual([r.wanted for r in left.ratios], [1.1, 2, 2])
        self.assertEqual(len(whole.agree) - len(left.agree), 8)
        self.assertFalse(any(set(a[:2]) & set(by_amx) for a in left.agree))
        self.assertEqual(whole.without([]), whole)


class AWorker:
    """Of a tool that has some of the cases."""

    def __init__(self, missing):
        self.missing, self.ran = missing, []

    def ask(self, **request):
        name = request.get("case")
        if request["do"] == "run":
            self.ran.append(name)
            return {"seconds": 2.0, "tokens": 10, "loss": 1.5}
        return {"not here": "no such unit"} if name in self.missing else {}


class Driver(unittest.TestCase):
    ours, other = phases.Case("ours", "atmanrl", {}), phases.Case("theirs", "PyTorch", {})
    special = phases.Case("special", "atmanrl", {}, unit="s", optional=True)
    phase = phases.Phase(
        "p",
        "some work",
        "f32",
        [ours, special, other],
        [phases.Ratio("theirs", "ours", "theirs"), phases.Ratio("special", "special", "theirs")],
        [("ours", "theirs", 0.1), ("special", "theirs", 0.1)],
    )

    def run_with(self, missing):
        workers = {"atmanrl": AWorker(missing), "PyTorch": AWorker([])}
        with contextlib.redirect_stderr(io.StringIO()) as said:
            found = compare.run_phase(self.phase, workers, 2)
        return found, workers["atmanrl"].ran, said.getvalue()

    def test_what_a_machine_has_not_is_said_and_neither_run_nor_compared(self):
        found, ran, said = self.run_with([])
        self.assertEqual([len(found["agreement"]), sorted(found["rounds"][0])], [2, ["ours", "special", "theirs"]])
        found, ran, said = self.run_with(["special"])
        self.assertEqual([len(found["agreement"]), sorted(found["rounds"][0])], [1, ["ours", "theirs"]])
        self.assertEqual(ran, ["ours"] * 3)
        self.assertIn("special is left out: no such unit", said)
        with self.assertRaises(SystemExit):
            self.run_with(["ours"])


class Families(unittest.TestCase):
    def test_a_family_is_read_from_the_processor(self):
        amd = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n"
        intel = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel name\t: Intel(R) Xeon(R)\nmodel\t\t: 143\n"
        arm = "processor\t: 0\nBogoMIPS\t: 100.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
        self.assertEqual(report.family(amd, "x86_64"), "amd-26")
        self.assertEqual(report.family(intel, "x86_64"), "intel-6-143")
        self.assertEqual(report.family(arm, "aarch64"), "arm-0x41-0xd40")
        self.assertEqual(report.family("", "riscv64"), "riscv64")

    def test_a_table_is_replaced_by_results_of_its_family_alone(self):
        page = "top\n" + "".join(
            f"{begin}\ntable of {name}\n{end}\n\n"
            for name, (begin, end) in ((n, report.marks(n)) for n in ("amd-26", "intel-6-143"))
        )
        page += "rest\n"
        found = report.place_block(page, "anew", "amd-26")
        self.assertEqual(found, page.replace("table of amd-26", "anew"))
        self.assertEqual(
            report.place_block(page, "other", "intel-6-143"), page.replace("table of intel-6-143", "other")
        )

    def test_the_first_table_of_a_family_stands_behind_the_others(self):
        one, other = report.marks("amd-26"), report.marks("amd-2")  # whose name is the beginning of the first's
        page = f"top\n{one[0]}\nold\n{one[1]}\n\nrest\n"
        once = report.place_block(page, "first\n", "amd-2")
        self.assertEqual(once, f"top\n{one[0]}\nold\n{one[1]}\n\n{other[0]}\nfirst\n{other[1]}\n\nrest\n")
        self.assertEqual(report.place_block(once, "second", "amd-2"), once.replace("first", "second"))
        with self.assertRaises(ValueError):
            report.place_block("a page without tables", "new", "amd-26")
        with self.assertRaises(ValueError):
            report.place_block(f"top\n{one[0]}\nno end\n", "new", "amd-26")

    def test_results_lie_in_a_file_for_each_family_and_go_on_while_machine_and_versions_are_the_same(self):
        folder = pathlib.Path("somewhere")
        self.assertNotEqual(report.results_file(folder, "amd-25"), report.results_file(folder, "amd-26"))
        before = {"family": "amd-25", "machine": "m", "versions": "v", "phases": {"prefill/f32": {}}}
        self.assertEqual(report.first_results(before, "amd-25", "m", "v"), (before, False))
        for family, machine, versions in (("amd-26", "m", "v"), ("amd-25", "n", "v"), ("amd-25", "m", "w")):
            fresh = {"family": family, "machine": machine, "versions": versions, "phases": {}}
            self.assertEqual(report.first_results(before, family, machine, versions), (fresh, True))
            self.assertEqual(report.first_results(None, family, machine, versions), (fresh, False))

    def test_the_page_has_a_table_for_the_family_that_its_machine_names(self):
        page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "performance.md").read_text()
        names = re.findall(r"<!-- compare-(\S+): begin -->", page)
        self.assertIn("amd-26", names)
        for name in names:
            begin, end = report.marks(name)
            block = page[page.index(begin) : page.index(end)]
            self.assertTrue(block.startswith(f"{begin}\n### {name}\n\nMachine: "))
            if name.startswith("amd-"):
                self.assertIn(f"(family {name[4:]}, model ", block)
            self.assertEqual(report.place_block(page, block[len(begin) :].strip("\n"), name), page)


class Phases(unittest.TestCase):
    def test_every_ratio_and_every_check_names_cases_of_its_phase(self):
        for phase in phases.phases():
            names = {c.name for c in phase.cases}
            timed = {c.name for c in phase.cases if c.timed}
            self.assertEqual(len(names), len(phase.cases))
            for ratio in phase.ratios:
                self.assertLessEqual({ratio.fast, ratio.slow}, timed)
            for a, b, tolerance in phase.agree:
                self.assertLessEqual({a, b}, names)
                self.assertLess(tolerance, 0.5)
            # Drawn completions cannot be compared: those of the same tool that are greedy stand for them.
            self.assertLessEqual(
                {r.fast for r in phase.ratios} | {r.slow for r in phase.ratios},
                {name.partition(", greedy")[0] for pair in phase.agree for name in pair[:2]},
            )


if __name__ == "__main__":
    unittest.main()
