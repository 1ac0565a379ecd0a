"""Handwritten digits to learn from: MNIST where its files are, else the 8x8 digits that scikit-learn ships."""

import collections
import glob
import gzip
import os
import sys

import numpy as np

import mnist

CLASSES = 10
VALIDATION_SHARE = 0.25  # of the small set, which comes unsplit
DIGITS = os.path.join("sklearn", "datasets", "data", "digits.csv.gz")

# Images are rows of float32 in [0, 1], labels are int32.
Dataset = collections.namedtuple("Dataset", "name train_x train_y valid_x valid_y")


def read_images(folder, name):
    """Return the images of one idx file as rows."""
    shape, data = mnist.read_idx(mnist.find(folder, name))
    return np.frombuffer(data, np.uint8).reshape(shape[0], -1).astype(np.float32) / 255


def read_labels(folder, name):
    """Return the labels of one idx file."""
    _, data = mnist.read_idx(mnist.find(folder, name))
    return np.frombuffer(data, np.uint8).astype(np.int32)


def load_mnist(folder):
    """Return MNIST in its published split."""
    return Dataset(
        f"MNIST from {folder}",
        read_images(folder, "train-images-idx3-ubyte"),
        read_labels(folder, "train-labels-idx1-ubyte"),
        read_images(folder, "t10k-images-idx3-ubyte"),
        read_labels(folder, "t10k-labels-idx1-ubyte"),
    )


def find_digits():
    """Return the path of scikit-learn's digits file; the package itself, slow to import, is not loaded."""
    for folder in sys.path:
        found = glob.glob(os.path.join(glob.escape(folder), DIGITS))
        if found:
            return found[0]
    raise FileNotFoundError("There are no digits to train on: give a folder with MNIST's files by --data, or install scikit-learn.")


def load_digits(seed):
    """Return scikit-learn's digits, split by the seed."""
    with gzip.open(find_digits(), "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    table = table[np.random.RandomState(seed).permutation(len(table))]
    images, labels = table[:, :-1] / 16, table[:, -1].astype(np.int32)
    cut = int(len(table) * VALIDATION_SHARE)
    return Dataset("scikit-learn's 8x8 digits", images[cut:], labels[cut:], images[:cut], labels[:cut])


def load(folder, seed):
    """Return MNIST from the named folder, $MNIST_DIR or the setup step, else scikit-learn's digits.

    A folder that was named but lacks a file is an error, never a silent change of data."""
    named = folder or os.environ.get("MNIST_DIR")
    if named and not mnist.complete(named):
        raise FileNotFoundError(f"{named} does not hold MNIST's four files ({', '.join(mnist.FILES)}, plain or .gz).")
    if named or mnist.complete(mnist.FOLDER):
        return load_mnist(named or mnist.FOLDER)
    return load_digits(seed)
