#!/usr/bin/env python3
"""What bench/on_a_gpu.py makes of programs that stand in for those of a device."""

import contextlib
import io
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import on_a_gpu  # noqa: E402

# As bench/phases_cuda.cu prints them.
PHASES = """NVIDIA H200; 16 layers, 1.24 G parameters in bf16, products of floats in float, CUDA graphs
reached here: copies 4.30 TB/s, products of bf16 780 Tflop/s, of floats 52
prefill                         0.002 s       100000 tokens/s   45.1 % of the floor of 0.0009 s
20 mask steps, all_later        0.571 s       109841 tokens/s   61.2 % of the floor of 0.3495 s
update of adapters, rank 16     0.099 s        34343 tokens/s   
peak 9.10 GiB on the device
"""


def stage(name, script, most=20):
    return on_a_gpu.Stage(name, most, "a stage", ["sh", "-c", script], {"SAID": "hello"})


class OnAGpu(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name) / "out"

    def run_stages(self, stages, *arguments):
        told = io.StringIO()
        with mock.patch.object(on_a_gpu, "stages", lambda build, out: stages), contextlib.redirect_stdout(told), \
                contextlib.redirect_stderr(told):
            status = on_a_gpu.main(["--out", str(self.out), *arguments])
        page = self.out / "page.md"
        return status, told.getvalue(), page.read_text() if page.exists() else ""

    def test_lines_of_phases_become_a_table_with_predictions_of_that_stage_alone(self):
        rows = on_a_gpu.phases_of(PHASES)
        self.assertEqual([row["phase"] for row in rows],
                         ["prefill", "20 mask steps, all_later", "update of adapters, rank 16"])
        self.assertEqual((rows[1]["seconds"], rows[1]["share"], rows[1]["floor"]), ("0.571", "61.2", "0.3495"))
        self.assertIsNone(rows[2]["floor"])
        line = "| 20 mask steps, all_later | 0.571 | 0.3495 | 61.2 % |"
        self.assertIn(line + " 1.23 to 1.40 | 0.51 to 0.60 |", on_a_gpu.phase_table(stage("phases", ""), PHASES))
        self.assertIn(line + "  |  |", on_a_gpu.phase_table(stage("eager", ""), PHASES))

    def test_every_prediction_is_of_a_phase_that_the_program_prints(self):
        source = (pathlib.Path(on_a_gpu.__file__).with_name("phases_cuda.cu")).read_text()
        for phase in on_a_gpu.EXPECTED:
            self.assertIn(f'"{phase}"', source)

    def test_stages_run_in_order_each_with_its_output_and_its_environment(self):
        status, told, page = self.run_stages([stage("phases", "echo $SAID; printf '%s\\n' '20 mask steps, all_later   "
                                                              "0.571 s    1 tokens/s   61.2 % of the floor of 0.3 s'"),
                                              stage("tests", "echo passed")])
        self.assertEqual(status, 0)
        self.assertLess(page.index("## phases"), page.index("## tests"))
        self.assertIn("0.51 to 0.60", page)
        self.assertIn("0.51 to 0.60", told)
        self.assertIn("hello", (self.out / "phases.txt").read_text())
        self.assertEqual((self.out / "tests.txt").read_text(), "passed\n")

    def test_a_stage_that_fails_is_said_and_the_next_one_runs(self):
        status, _, page = self.run_stages([stage("phases", "echo broken; exit 3"), stage("tests", "echo passed")])
        self.assertEqual(status, 1)
        self.assertRegex(page, r"## phases: a stage\n\nfailed")
        self.assertIn("passed", page)

    def test_a_stage_is_stopped_when_its_time_is_over_and_keeps_what_it_printed(self):
        status, _, page = self.run_stages([stage("phases", "echo begun; exec sleep 30", most=1)])
        self.assertEqual(status, 1)
        self.assertIn("stopped after 1 s", page)
        self.assertEqual((self.out / "phases.txt").read_text(), "begun\n")

    def test_what_there_is_no_time_for_is_named(self):
        status, told, page = self.run_stages([stage("phases", "echo late")], "--minutes", "0.05")
        self.assertEqual(status, 0)
        self.assertIn("phases: not run", told)
        self.assertRegex(page, r"## phases: a stage\n\nnot run")

    def test_only_the_stages_that_are_asked_for(self):
        stages = [stage("phases", "echo one"), stage("tests", "echo two")]
        _, _, page = self.run_stages(stages, "tests")
        self.assertNotIn("## phases", page)
        status, told, _ = self.run_stages(stages, "test")
        self.assertEqual(status, 2)
        self.assertIn("stage 'test', but there are phases, tests", told)

    def test_without_a_device_nothing_is_written(self):
        status, told, page = self.run_stages([stage("phases", "echo skipped; exit 77"), stage("tests", "echo passed")])
        self.assertEqual(status, 77)
        self.assertIn("there is no CUDA device", told)
        self.assertEqual(page, "")

    def test_the_same_status_after_a_stage_that_ended_well_is_a_failure(self):
        status, _, page = self.run_stages([stage("phases", "echo fast"), stage("tests", "echo odd; exit 77")])
        self.assertEqual(status, 1)
        self.assertIn("fast", page)
        self.assertRegex(page, r"## tests: a stage\n\nfailed")

    def test_a_program_that_is_not_there_is_named(self):
        lost = on_a_gpu.Stage("phases", 5, "a stage", ["/nowhere/phases_cuda"])
        status, _, page = self.run_stages([lost])
        self.assertEqual(status, 1)
        self.assertIn("/nowhere/phases_cuda", page)

    def test_the_stages_that_matter_most_fit_into_the_minutes(self):
        real = on_a_gpu.stages(pathlib.Path("build"), self.out)
        names = [s.name for s in real]
        self.assertEqual(names[0], "phases")
        self.assertEqual(len(set(names)), len(names))
        self.assertLessEqual(sum(s.most for s in real[:names.index("eager")]), 8 * 60)


if __name__ == "__main__":
    unittest.main()
