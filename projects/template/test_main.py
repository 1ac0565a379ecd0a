"""Tests of the template's program: python3 -m unittest in this folder."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import unittest

import main

FOLDER = os.path.dirname(os.path.abspath(__file__))


class FitTest(unittest.TestCase):
    """The polynomial that is fitted."""

    def test_finds_known_coefficients(self):
        xs = [i / 10 for i in range(-10, 11)]
        got = main.fit(xs, [2 - 3 * x + x**3 for x in xs], 3)
        for have, want in zip(got, [2, -3, 0, 1]):
            self.assertAlmostEqual(have, want, places=6)

    def test_error_falls_with_degree(self):
        options = argparse.Namespace(points=200, noise=0.1, seed=1)
        xs, ys = main.sample(options)
        errors = [main.error(main.fit(xs, ys, degree), xs) for degree in (1, 3, 5)]
        self.assertEqual(errors, sorted(errors, reverse=True))
        self.assertLess(errors[-1], 0.05)


class ProgramTest(unittest.TestCase):
    """The program as mlfnode runs it."""

    def test_leaves_metrics_and_an_artifact(self):
        with tempfile.TemporaryDirectory() as folder:
            metrics = os.path.join(folder, "metrics")
            command = [sys.executable, os.path.join(FOLDER, "main.py"), "--degree=5", "--noise=0.1"]
            subprocess.run(command, cwd=folder, env={**os.environ, "MLF_METRICS": metrics}, check=True, capture_output=True)
            with open(metrics) as file:
                self.assertLess(json.loads(file.read())["error"], 0.05)
            with open(os.path.join(folder, "result", "coefficients.json")) as file:
                self.assertEqual(len(json.load(file)), 6)

    def test_goes_on_from_what_it_saved(self):
        with tempfile.TemporaryDirectory() as folder:
            saved = os.path.join(folder, "saved")
            os.mkdir(saved)

            def run(rounds, **environ):
                command = [sys.executable, os.path.join(FOLDER, "main.py"), "--degree=3", f"--rounds={rounds}"]
                return subprocess.run(command, cwd=folder, env={**os.environ, **environ}, check=True, capture_output=True).stdout

            whole = run(9)
            run(4, MLF_CHECKPOINT=saved)
            self.assertEqual(run(9, MLF_CHECKPOINT=saved, MLF_RESUME=saved), whole)
            self.assertEqual(os.listdir(saved), ["state.json"])


if __name__ == "__main__":
    unittest.main()
