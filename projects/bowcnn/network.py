"""The network that both back ends train, and the choice between them.

It is the bag-of-words convolution of Johnson and Zhang (NAACL 2015): each region of REGION
neighbouring words is a bag of words, seen by UNITS filters with ReLU; the strongest answer of
each filter anywhere in the text goes to a linear layer; softmax cross entropy, Adam. A filter
over a bag of words is the sum of the words' rows in a table, so no sparse vector is built.

A back end is a class `Classifier(weights)` with train(x, y) and evaluate(x, y), which return
(loss, accuracy). Both start from the same weights, so they learn the same thing.
"""

import collections
import importlib
import os

import numpy as np

REGION = 3
UNITS = 64
RATE = 0.003

Back = collections.namedtuple("Back", "name Classifier")


def initial_weights(vocabulary, classes, seed):
    """Return the table of filters by word, the filters' biases and the output layer."""
    random = np.random.RandomState(seed)
    return {
        "words/W": (random.standard_normal((vocabulary, UNITS)) * 0.1).astype(np.float32),
        "words/b": np.zeros(UNITS, np.float32),
        "output/W": (random.standard_normal((classes, UNITS)) / np.sqrt(UNITS)).astype(np.float32),
        "output/b": np.zeros(classes, np.float32),
    }


def choose_back_end():
    """Return Chainer where it is installed, else plain NumPy; $MLF_BACKEND (chainer or numpy) decides instead."""
    wanted = os.environ.get("MLF_BACKEND")
    try:
        module = importlib.import_module(f"backend_{wanted or 'chainer'}")
    except ImportError:
        if wanted:
            raise
        module = importlib.import_module("backend_numpy")
    return Back(module.NAME, module.Classifier)
