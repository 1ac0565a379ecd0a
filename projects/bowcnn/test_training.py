"""Runs check_training.py, which needs NumPy, with the Python that the setup step makes for it."""

import os
import subprocess
import unittest

import mkvenv

FOLDER = os.path.dirname(os.path.abspath(__file__))


class TrainingTest(unittest.TestCase):
    """The checks of the training, in their environment."""

    def test_checks_pass_in_the_environment(self):
        here = os.getcwd()
        os.chdir(FOLDER)
        self.addCleanup(os.chdir, here)
        try:
            venv = mkvenv.ensure(mkvenv.pick_python())
        except mkvenv.Unavailable as missing:
            self.skipTest(str(missing))
        command = [mkvenv.interpreter(venv), "-B", "-m", "unittest", "-v", "check_training"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Ran ", done.stderr)


if __name__ == "__main__":
    unittest.main()
