"""Tests of what needs no NumPy: python3 -m unittest in this folder."""

import filecmp
import io
import os
import tarfile
import tempfile
import unittest
import zipfile

import corpus
import prepare

FOLDER = os.path.dirname(os.path.abspath(__file__))


def make_package(path, sentences):
    """Write a source package that carries the sentences in an archive, as the real one does."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as inner:
        for name in [*corpus.FILES.values(), "other.txt"]:
            member = tarfile.TarInfo(f"folder/{name}")
            member.size = len(sentences)
            inner.addfile(member, io.BytesIO(sentences))
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr(f"package/{prepare.INNER_ARCHIVE}", buffer.getvalue())


class CorpusTest(unittest.TestCase):
    """The sets of texts."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name

    def test_reads_rated_sentences_out_of_the_package(self):
        package = os.path.join(self.folder, "package.zip")
        make_package(package, b'1\t2.5\tA "good one\n2\t-1.5\tbad\xff\n3\t0.2\tso so\nno rating\n')
        prepare.extract(package, self.folder)
        self.assertFalse(os.path.exists(os.path.join(self.folder, "other.txt")))
        source = corpus.load("source", 0, self.folder)
        self.assertEqual((source.classes, len(source.texts)), (list(corpus.FILES), 12))
        sentiment = corpus.load("sentiment", 0, self.folder)
        self.assertEqual(sorted(set(zip(sentiment.labels, sentiment.texts))), [(0, "bad\ufffd"), (1, 'A "good one')])

    def test_docstrings_serve_where_the_sentences_are_not(self):
        data = corpus.load("source", 0, self.folder)
        self.assertIn("not here", data.name)
        self.assertEqual(data.classes, list(corpus.TOPICS))
        counts = {data.labels.count(label) for label in range(len(data.classes))}
        self.assertEqual(len(counts), 1, "classes of unequal size")
        self.assertGreater(counts.pop(), 200)

    def test_the_seed_fixes_the_choice(self):
        one, same, other = (corpus.load("docstrings", seed, self.folder).texts for seed in (1, 1, 2))
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)


class SharedFilesTest(unittest.TestCase):
    """Projects are packed one by one, so the files they share are copies."""

    def test_copies_are_equal(self):
        beside = os.path.join(os.path.dirname(FOLDER), "chainer")
        if not os.path.isdir(beside):
            self.skipTest("the chainer example is not beside this one")
        for name in ("mkvenv.py", "run.sh", "requirements-chainer.txt", "test_training.py"):
            same = filecmp.cmp(os.path.join(FOLDER, name), os.path.join(beside, name), shallow=False)
            self.assertTrue(same, f"{name} differs from that of the chainer example; copy the newer one over")


if __name__ == "__main__":
    unittest.main()
