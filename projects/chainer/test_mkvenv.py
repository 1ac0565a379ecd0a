"""Tests of the setup step: python3 -m unittest in this folder. They need no network and no package."""

import glob
import os
import subprocess
import sys
import tempfile
import threading
import unittest

import mkvenv

FOLDER = os.path.dirname(os.path.abspath(__file__))
CLOSED = "http://127.0.0.1:9/simple"  # nobody listens on the discard port


class BuildOnceTest(unittest.TestCase):
    """Folders that appear whole or not at all."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.final = os.path.join(temporary.name, "venv-x")

    def test_two_at_once_build_once(self):
        built = []
        arguments = (self.final, os.path.isdir, built.append)
        threads = [threading.Thread(target=mkvenv.build_once, args=arguments) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(built), 1)
        self.assertTrue(os.path.isdir(self.final))

    def test_a_failed_build_leaves_nothing(self):
        def fail(folder):
            open(os.path.join(folder, "half"), "w").close()
            raise OSError("disk full")

        with self.assertRaises(OSError):
            mkvenv.build_once(self.final, os.path.isdir, fail)
        self.assertEqual(glob.glob(self.final + "*"), [self.final + ".lock"])

    def test_remains_of_a_crash_are_removed(self):
        os.mkdir(self.final + ".tmp-crashed")
        mkvenv.build_once(self.final, os.path.isdir, lambda folder: None)
        self.assertEqual(sorted(glob.glob(self.final + "*")), [self.final, self.final + ".lock"])

    def test_a_broken_folder_is_built_again(self):
        os.mkdir(self.final)
        mkvenv.build_once(self.final, os.listdir, lambda folder: os.mkdir(os.path.join(folder, "content")))
        self.assertEqual(os.listdir(self.final), ["content"])


class ClosedNetworkTest(unittest.TestCase):
    """The setup step where the package index can't be reached."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = temporary.name
        self.python = os.path.join(self.root, "outer", "bin", "python3")
        mkvenv.make_venv(sys.executable, os.path.dirname(os.path.dirname(self.python)))
        self.work = os.path.join(self.root, "work")
        os.mkdir(self.work)
        for name in (mkvenv.BASE, mkvenv.CHAINER):
            os.symlink(os.path.join(FOLDER, name), os.path.join(self.work, name))

    def prepare(self):
        """Run the step in a folder of its own."""
        env = {**os.environ, "MLF_CACHE": os.path.join(self.root, "cache"), "MLF_PYTHON": self.python, "PIP_INDEX_URL": CLOSED, "PYTHONPATH": FOLDER}
        env.pop("PIP_FIND_LINKS", None)
        env.pop("PIP_EXTRA_INDEX_URL", None)
        command = [sys.executable, "-B", os.path.join(FOLDER, "prepare.py")]
        return subprocess.run(command, cwd=self.work, env=env, capture_output=True, text=True, check=False)

    def install_stand_in(self):
        """Give the outer Python something to import as NumPy."""
        site = glob.glob(os.path.join(self.root, "outer", "lib", "python3*", "site-packages"))[0]
        os.mkdir(os.path.join(site, "numpy"))
        with open(os.path.join(site, "numpy", "__init__.py"), "w") as file:
            file.write("__version__ = 'stand-in'\n")

    def test_without_numpy_it_says_what_to_install(self):
        done = self.prepare()
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("install NumPy", done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertFalse(os.path.lexists(os.path.join(self.work, mkvenv.LINK)))
        left = [name for name in os.listdir(os.path.join(self.root, "cache")) if not name.endswith(".lock")]
        self.assertEqual(left, [])

    def test_an_installed_numpy_serves_and_nothing_is_built_twice(self):
        self.install_stand_in()
        inodes = []
        for _ in range(2):
            done = self.prepare()
            self.assertEqual(done.returncode, 0, done.stderr)
            inodes.append(os.stat(os.path.join(self.work, mkvenv.LINK)).st_ino)
        inner = os.path.join(self.work, mkvenv.LINK, "bin", "python3")
        said = subprocess.check_output([inner, "-c", "import numpy; print(numpy.__version__)"], text=True)
        self.assertEqual(said.strip(), "stand-in")
        self.assertEqual(inodes[0], inodes[1])


if __name__ == "__main__":
    unittest.main()
