"""Digits to learn from: MNIST where its files are, else the 8x8 digits that scikit-learn ships, else drawn ones."""

import collections
import gzip
import os
import sys

import numpy as np

import drawn
import mnist

CLASSES = 10
VALIDATION_SHARE = 0.25  # of the small sets, which come unsplit
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
    """Return the path of scikit-learn's digits file or None; the package itself, slow to import, is not loaded."""
    paths = (os.path.join(folder, DIGITS) for folder in sys.path)
    return next((path for path in paths if os.path.exists(path)), None)


def read_digits(path):
    """Return the images and labels of scikit-learn's digits file."""
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return table[:, :-1] / 16, table[:, -1].astype(np.int32)


def split(name, images, labels, seed):
    """Return the set shuffled by the seed, its first quarter being for validation."""
    order = np.random.RandomState(seed).permutation(len(labels))
    images, labels = images[order], labels[order]
    cut = int(len(labels) * VALIDATION_SHARE)
    return Dataset(name, images[cut:], labels[cut:], images[:cut], labels[:cut])


def load_small(seed):
    """Return the digits of scikit-learn where it is installed, else drawn ones."""
    path = find_digits()
    if path:
        return split("scikit-learn's 8x8 handwritten digits", *read_digits(path), seed)
    return split("digits drawn from a font, as there is neither MNIST nor scikit-learn", *drawn.draw(seed), seed)


def load(folder, seed):
    """Return MNIST from the named folder, $MNIST_DIR or the setup step, else a small set.

    A folder that was named but lacks a file is an error, never a silent change of data."""
    named = folder or os.environ.get("MNIST_DIR")
    if named and not mnist.complete(named):
        raise FileNotFoundError(f"{named} does not hold MNIST's four files ({', '.join(mnist.FILES)}, plain or .gz).")
    if named or mnist.complete(mnist.FOLDER):
        return load_mnist(named or mnist.FOLDER)
    return load_small(seed)
