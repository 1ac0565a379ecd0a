"""Checks of the words, the back ends and the program; test_training.py runs them where NumPy is."""

import contextlib
import importlib.util
import io
import json
import os
import tempfile
import unittest
from unittest import mock

import numpy as np

import backend_numpy
import bowcnn
import network
import words

HAS_CHAINER = importlib.util.find_spec("chainer") is not None
VOCABULARY = 50


def back_ends():
    """Return the classifiers that this Python can run."""
    if not HAS_CHAINER:
        return [backend_numpy.Classifier]
    import backend_chainer

    return [backend_numpy.Classifier, backend_chainer.Classifier]


def texts(count=120):
    """Return rows of word numbers, some padded; the class is told by which words are in them."""
    random = np.random.RandomState(1)
    y = random.randint(0, 3, count).astype(np.int32)
    x = random.randint(0, VOCABULARY, (count, 12)).astype(np.int32)
    x[np.arange(count), random.randint(0, 4, count)] = y
    x[random.rand(count) < 0.5, 6:] = words.PADDING
    return x, y


class WordsTest(unittest.TestCase):
    """Texts as arrays."""

    def test_numbers_known_words_and_pads_the_rest(self):
        numbers = words.vocabulary(["The cat, the dog", "the cat"])
        self.assertEqual(list(numbers), ["the", "cat", ",", "dog"])
        rows = words.encode(["dog bites THE cat", ""], numbers)
        self.assertEqual(rows.shape, (2, words.LENGTH))
        self.assertEqual(list(rows[0, :4]), [3, 0, 1, words.PADDING])
        self.assertTrue((rows[1] == words.PADDING).all())


class FoldsTest(unittest.TestCase):
    """Cross-validation."""

    def test_every_text_is_tested_once_and_never_learnt_from_then(self):
        tested = []
        for learn, test in bowcnn.folds(11, 3, seed=0):
            self.assertEqual(sorted([*learn, *test]), list(range(11)))
            tested.extend(test)
        self.assertEqual(sorted(tested), list(range(11)))


class BackEndTest(unittest.TestCase):
    """What both back ends must do alike."""

    def test_loss_falls(self):
        x, y = texts()
        for classifier in back_ends():
            with self.subTest(classifier.__module__):
                model = classifier(network.initial_weights(VOCABULARY, 3, 0))
                before, _ = model.evaluate(x, y)
                for _ in range(100):
                    model.train(x, y)
                self.assertLess(model.evaluate(x, y)[0], 0.5 * before)

    def test_gradient_of_the_table_is_that_of_the_loss(self):
        x, y = texts()
        weights = {name: value.astype(float) for name, value in network.initial_weights(VOCABULARY, 3, 0).items()}
        model = backend_numpy.Classifier(weights)
        with mock.patch.object(model.optimizer, "update") as update:
            model.train(x, y)
        table, step, cell = model.weights["words/W"], 1e-6, (2, 5)
        table[cell] += step
        above = model.evaluate(x, y)[0]
        table[cell] -= 2 * step
        below = model.evaluate(x, y)[0]
        self.assertAlmostEqual(update.call_args[0][0]["words/W"][cell], (above - below) / (2 * step), places=6)

    @unittest.skipUnless(HAS_CHAINER, "Chainer is not installed in this Python")
    def test_both_learn_the_same(self):
        x, y = texts()
        models = [classifier(network.initial_weights(VOCABULARY, 3, 0)) for classifier in back_ends()]
        for start in range(0, len(y), 20):
            one, other = (model.train(x[start : start + 20], y[start : start + 20]) for model in models)
            np.testing.assert_allclose(one, other, rtol=1e-3)
        np.testing.assert_allclose(*(model.evaluate(x, y) for model in models), rtol=1e-3)


class ProgramTest(unittest.TestCase):
    """The whole program."""

    def test_beats_chance_and_leaves_its_results(self):
        with tempfile.TemporaryDirectory() as folder:
            result, metrics = os.path.join(folder, "result.json"), os.path.join(folder, "metrics")
            with mock.patch.dict(os.environ, {"MLF_METRICS": metrics}), contextlib.redirect_stdout(io.StringIO()):
                bowcnn.main(["--maxiter=2", "--nfolds=3", "--dataset=docstrings", f"--jsonresult={result}"])
            with open(result) as file:
                left = json.load(file)
            with open(metrics) as file:
                summary = json.loads(file.read())
        self.assertGreater(summary["accuracy"], 2 * summary["chance"])
        self.assertEqual(len(left["folds"]), 3)
        self.assertEqual({**left, **summary}, left)


if __name__ == "__main__":
    unittest.main()
