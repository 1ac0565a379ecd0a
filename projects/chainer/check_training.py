"""Checks of the data, the back ends and the program; test_training.py runs them where NumPy is."""

import contextlib
import importlib.util
import io
import json
import os
import struct
import tempfile
import unittest
from unittest import mock

import numpy as np

import backend_numpy
import dataset
import drawn
import mnist
import network
import train_mnist

HAS_CHAINER = importlib.util.find_spec("chainer") is not None
SIZES = [64, 20, 20, 10]


def back_ends():
    """Return the classifiers that this Python can run."""
    if not HAS_CHAINER:
        return [backend_numpy.Classifier]
    import backend_chainer

    return [backend_numpy.Classifier, backend_chainer.Classifier]


def digits():
    """Return a small set to train on."""
    x, y = drawn.draw(seed=1)
    return x[:500], y[:500]


class DataTest(unittest.TestCase):
    """The sets of digits."""

    def test_small_sets_have_one_shape(self):
        for path in (None, dataset.find_digits()):
            with mock.patch.object(dataset, "find_digits", return_value=path):
                data = dataset.load("", seed=3)
            with self.subTest(data.name):
                self.assertEqual(data.train_x.shape[1], 64)
                self.assertEqual((data.train_x.dtype, data.train_y.dtype), (np.float32, np.int32))
                self.assertTrue(0 <= data.train_x.min() and data.train_x.max() <= 1)
                self.assertEqual(set(data.valid_y), set(range(10)))

    def test_the_seed_fixes_the_split(self):
        one, same, other = (dataset.load("", seed=seed).valid_y for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        self.assertFalse(np.array_equal(one, other))

    def test_reads_a_folder_of_mnist(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in mnist.FILES:
                shape = (3, 28, 28) if "images" in name else (3,)
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes([5]) * int(np.prod(shape)))
            data = dataset.load(folder, seed=0)
        self.assertEqual((data.train_x.shape, data.valid_x.shape), ((3, 784), (3, 784)))
        self.assertEqual(list(data.train_y), [5, 5, 5])
        self.assertAlmostEqual(float(data.train_x[0, 0]), 5 / 255)

    def test_a_named_folder_without_mnist_is_refused(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(FileNotFoundError):
            dataset.load(folder, seed=0)


class BackEndTest(unittest.TestCase):
    """What both back ends must do alike."""

    def test_loss_falls(self):
        x, y = digits()
        for classifier in back_ends():
            with self.subTest(classifier.__module__):
                model = classifier(network.initial_weights(SIZES, 0), -1)
                before, _ = model.evaluate(x, y)
                for _ in range(300):
                    model.train(x, y)
                self.assertLess(model.evaluate(x, y)[0], 0.5 * before)

    def test_gradient_is_that_of_the_loss(self):
        x, y = digits()
        model = backend_numpy.Classifier({k: v.astype(float) for k, v in network.initial_weights(SIZES, 0).items()}, -1)
        values = model.forward(x.astype(float))
        gradients = model.backward(values, backend_numpy.softmax_cross_entropy(values[-1], y)[2].astype(float))
        for name, array in model.weights.items():
            spot = tuple(size // 2 for size in array.shape)
            step = 1e-5
            array[spot] += step
            above = model.evaluate(x, y)[0]
            array[spot] -= 2 * step
            below = model.evaluate(x, y)[0]
            array[spot] += step
            self.assertAlmostEqual(gradients[name][spot], (above - below) / (2 * step), places=6, msg=name)

    @unittest.skipUnless(HAS_CHAINER, "Chainer is not installed in this Python")
    def test_both_learn_the_same(self):
        x, y = digits()
        models = [classifier(network.initial_weights(SIZES, 0), -1) for classifier in back_ends()]
        for start in range(0, 500, 50):
            one, other = (model.train(x[start : start + 50], y[start : start + 50]) for model in models)
            np.testing.assert_allclose(one, other, rtol=1e-3)
        with tempfile.TemporaryDirectory() as folder:
            snapshots = []
            for number, model in enumerate(models):
                model.save(os.path.join(folder, f"{number}.npz"))
                snapshots.append(np.load(os.path.join(folder, f"{number}.npz")))
            self.assertEqual(sorted(snapshots[0].files), sorted(snapshots[1].files))
            for name in snapshots[0].files:
                np.testing.assert_allclose(snapshots[0][name], snapshots[1][name], atol=1e-4, err_msg=name)

    def test_a_gpu_that_is_not_there_is_refused(self):
        for classifier in back_ends():
            with self.subTest(classifier.__module__), self.assertRaisesRegex(RuntimeError, "--gpu=0"):
                classifier(network.initial_weights(SIZES, 0), 0)


class ProgramTest(unittest.TestCase):
    """The whole program."""

    def test_leaves_log_metrics_and_snapshot(self):
        with tempfile.TemporaryDirectory() as folder:
            out, metrics = os.path.join(folder, "result"), os.path.join(folder, "metrics")
            with mock.patch.dict(os.environ, {"MLF_METRICS": metrics}), contextlib.redirect_stdout(io.StringIO()) as said:
                train_mnist.main(["--epoch=4", "--unit=100", "--batchsize=20", "--gpu=-1", f"--out={out}"])
            with open(os.path.join(out, "log")) as file:
                log = json.load(file)
            with open(metrics) as file:
                self.assertEqual([json.loads(line) for line in file], log)
            self.assertEqual([entry["epoch"] for entry in log], [1, 2, 3, 4])
            self.assertGreater(log[-1]["validation/main/accuracy"], 0.9)
            self.assertEqual(sorted(os.listdir(out)), ["log", "snapshot.npz"])
            self.assertEqual(len(said.getvalue().splitlines()), 3 + 1 + 4)

    def test_goes_on_from_what_it_saved(self):
        for back_end in ["numpy", "chainer"] if HAS_CHAINER else ["numpy"]:
            with self.subTest(back_end), tempfile.TemporaryDirectory() as folder:
                whole = self.trained(folder, back_end, "whole", 5)
                os.mkdir(os.path.join(folder, "saved"))
                first = self.trained(folder, back_end, "parts", 2, MLF_CHECKPOINT=os.path.join(folder, "saved"))
                parts = self.trained(folder, back_end, "parts", 5, MLF_CHECKPOINT=os.path.join(folder, "saved"), MLF_RESUME="yes")
                self.assertEqual(first, whole[:2])
                self.assertEqual(parts, whole)

    def test_ends_after_the_epoch_of_a_notice(self):
        with tempfile.TemporaryDirectory() as folder:
            saved = train_mnist.checkpoint.Checkpoint
            with mock.patch.object(saved, "load", lambda self, *_: self.notice() or 0), self.assertRaises(SystemExit) as caught:
                self.trained(folder, "numpy", "out", 5, MLF_CHECKPOINT=folder)
            self.assertEqual(caught.exception.code, 85)
            self.assertEqual(int(np.load(os.path.join(folder, "state.npz"))["epoch"]), 1)

    def trained(self, folder, back_end, out, epochs, **environ):
        """Train and return the log without its times."""
        out = os.path.join(folder, out)
        with mock.patch.dict(os.environ, {"MLF_BACKEND": back_end, **environ}), contextlib.redirect_stdout(io.StringIO()):
            train_mnist.main([f"--epoch={epochs}", "--unit=30", "--batchsize=50", "--gpu=-1", f"--out={out}"])
        with open(os.path.join(out, "log")) as file:
            return [{k: v for k, v in entry.items() if k != "elapsed_time"} for entry in json.load(file)]

    def test_a_user_s_problem_is_one_sentence(self):
        for arguments, want in (["--gpu=0"], "CuPy"), (["--data=/nowhere"], "MNIST"):
            with self.assertRaises(SystemExit) as caught:
                train_mnist.main([*arguments, "--epoch=1"])
            self.assertIn(want, str(caught.exception))


if __name__ == "__main__":
    unittest.main()
