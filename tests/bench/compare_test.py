#!/usr/bin/env python3
"""The parts of bench/compare/ that need no packages."""

import math
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench" / "compare"))
import phases  # noqa: E402
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
        page = "above\n<!-- compare: begin -->\nold\n<!-- compare: end -->\nbelow\n"
        once = report.replace_block(page, "new\n")
        self.assertEqual(once, "above\n<!-- compare: begin -->\nnew\n<!-- compare: end -->\nbelow\n")
        self.assertEqual(report.replace_block(once, "new"), once)
        with self.assertRaises(ValueError):
            report.replace_block("no marks", "new")


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
