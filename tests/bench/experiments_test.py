#!/usr/bin/env python3
"""What bench/experiments.py makes of what the programs print; no program is run but the shell."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import experiments  # noqa: E402

MEMORY = """weights, master weights, gradient and moments: 2.51 GiB
cache      backward        update adds          s    sampling adds          s
f32        keep              372.7 MiB       1.65         28.3 MiB       1.39
bf16       recompute          76.7 MiB       1.87         19.1 MiB       1.00
"""
LORA = """28 layers, 3.21 G parameters in bf16, 2 threads
random weights                                  20.0 s   peak 6.02 GiB
update 1: ratios 1 ... 1, |g| 2.50e-01           35.1 s   peak 7.92 GiB
the step with its model: 751 s, peak 7.92 GiB of the process, 7.80 GiB in tensors: within 16 GiB
"""
SALIENCY = """random weights                                  20.0 s   peak 6.02 GiB
saliency map in 21.9 s, with its model 41.9 s, peak 6.12 GiB of the process, 6.12 GiB in tensors: within 16 GiB
"""


@contextlib.contextmanager
def runner(**changes):
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        given = {"quick": False, "stored": False, "to_page": False, **changes}
        yield experiments.Runner(pathlib.Path("build"), pathlib.Path(folder), **given)


class Pages(unittest.TestCase):
    def test_every_experiment_has_a_place_in_its_page(self):
        for name in experiments.EXPERIMENTS:
            if name != "pictures":
                text = experiments.page_of(name).read_text()
                filled = experiments.report.replace_block(text, "| new |", *experiments.marks(name))
                self.assertIn(f"<!-- {name}: begin -->\n| new |\n<!-- {name}: end -->", filled)

    def test_every_page_says_which_experiments_fill_it(self):
        for name in experiments.EXPERIMENTS:
            if name != "pictures":
                text = experiments.page_of(name).read_text()
                self.assertRegex(text, rf"`{name}`|--markdown {name}(?![\w-])")


class Output(unittest.TestCase):
    def test_rows_of_the_memory_benchmark(self):
        fixed, rows = experiments.memory_rows(MEMORY)
        self.assertEqual(fixed, "2.51 GiB")
        self.assertEqual(rows[0], ["f32", "everything kept", "372.7 MiB", "1.65", "28.3 MiB", "1.39"])
        self.assertEqual(rows[1], ["bf16", "recomputed", "76.7 MiB", "1.87", "19.1 MiB", "1.00"])

    def test_phases_of_the_3b_benchmarks_and_all_of_them_together(self):
        rows = experiments.phase_rows(LORA)
        self.assertEqual(rows[0], ["random weights", "20.0", "6.02 GiB"])
        self.assertEqual(rows[1], ["update 1: ratios 1 ... 1, \\|g\\| 2.50e-01", "35.1", "7.92 GiB"])
        self.assertEqual(rows[2:], [["all", "751", "7.92 GiB"]])
        self.assertEqual(experiments.phase_rows(SALIENCY)[1:], [["all", "41.9", "6.12 GiB"]])

    def test_table_1_with_its_sentences_wrapped_and_the_time_of_its_arms(self):
        with runner(stored=True) as r:
            folder = r.out / "table1"
            folder.mkdir()
            for seed, seconds in ((1, 60), (2, 120)):
                (folder / f"length-seed{seed}.json").write_text(json.dumps({"processor_seconds": seconds}))
            (folder / "table1.md").write_text("| a |\n|---|\n" + f"| {'b ' * 80}|\n\n" + "word " * 40 + "\n")
            result = experiments.Result("c", str(folder), "", 1, 1, "abc", "a machine", "2026-01-01")
            r.done["table1"] = result
            blocks = experiments.table1(r).split("\n\n")
            self.assertEqual(blocks[0], "| a |\n|---|\n" + f"| {'b ' * 80}|")
            self.assertEqual([len(line) for line in blocks[1].splitlines()], [119, 79])
            self.assertEqual(blocks[2], "The 2 runs took 3 minutes of processor time.")

    def test_what_changed_in_a_run(self):
        with runner() as r:
            result = r.run("run", "true")
            for when, accuracy, tokens in (("before", 0.725, 58.74), ("after", 0.73, 38.45)):
                path = result.file(f"evaluation_{when}.json")
                path.parent.mkdir(exist_ok=True)
                values = {"accuracy_strict": {"value": accuracy}, "cot_tokens": {"value": tokens}}
                path.write_text(json.dumps(values))
            result.file("metrics.jsonl").write_text('{"reward": -1.7799}\n{"reward": 0}\n{"reward": -1.7242}\n')
            self.assertEqual(experiments.changes(result), ("72.5 → 73.0", "58.7 → 38.5", "−1.780 → −1.724"))


class Running(unittest.TestCase):
    def test_smaller_settings_take_the_place_of_the_others(self):
        words = experiments.with_options(tuple("program --steps 650 --seed 1".split()), ("--steps", "2", "--lr", "1"))
        self.assertEqual(words, "program --seed 1 --steps 2 --lr 1".split())

    def test_a_command_runs_once_in_a_folder_that_is_empty(self):
        with runner() as r:
            (r.out / "name").mkdir()
            (r.out / "name" / "old").touch()
            first = r.run("name", "echo", "once")
            self.assertFalse((r.out / "name" / "old").exists())
            self.assertIs(r.run("name", "sh", "-c", "echo twice"), first)

    def test_finished_work_is_left_only_to_a_program_that_goes_on_and_only_on_request(self):
        for resume, goes_on in ((True, True), (True, False), (False, True)):
            with runner(resume=resume) as r:
                (r.out / "name").mkdir()
                (r.out / "name" / "finished").touch()
                r.run("name", "true", goes_on=goes_on)
                self.assertEqual((r.out / "name" / "finished").exists(), resume and goes_on)

    def test_stored_results_are_taken_over_only_of_the_same_command(self):
        with runner() as r:
            r.run("name", "echo", "hello")
            again = experiments.Runner(r.build, r.out, quick=False, stored=True, to_page=False)
            self.assertEqual(again.run("name", "echo", "hello").output, "hello\n")
            other = experiments.Runner(r.build, r.out, quick=False, stored=True, to_page=False)
            with self.assertRaisesRegex(experiments.Failed, "of another command"):
                other.run("name", "echo", "bye")

    def test_a_command_that_fails_leaves_no_result(self):
        with runner() as r:
            r.run("name", "echo", "hello")
            r.done.clear()
            with self.assertRaisesRegex(experiments.Failed, "status 3"):
                r.run("name", "sh", "-c", "exit 3")
            self.assertFalse((r.out / "name.json").exists())

    def test_an_experiment_that_fails_does_not_keep_the_others_from_their_tables(self):
        def fails(_):
            raise experiments.Failed("no data")

        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text("<!-- a: begin -->\n<!-- a: end -->\n<!-- b: begin -->\nold\n<!-- b: end -->\n")
            made = {"a": ("page.md", [], 1, fails), "b": ("page.md", [], 1, lambda _: "| new |")}
            with (
                mock.patch.object(experiments, "EXPERIMENTS", made),
                mock.patch.object(experiments, "page_of", lambda _: page),
                mock.patch.object(sys, "argv", ["experiments.py", "--stored", "--markdown"]),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                with self.assertRaisesRegex(SystemExit, "a: no data"):
                    experiments.main()
            wanted = "<!-- a: begin -->\n<!-- a: end -->\n<!-- b: begin -->\n| new |\n<!-- b: end -->\n"
            self.assertEqual(page.read_text(), wanted)


if __name__ == "__main__":
    unittest.main()
