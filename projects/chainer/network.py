"""The network that both back ends train, and the choice between them.

It is the one of Chainer's MNIST example: inputs, two hidden layers of `unit` with ReLU, ten
outputs; softmax cross entropy, Adam. A back end is a class `Classifier(weights, gpu)` with

    train(x, y)     one update on a minibatch, returns (loss, accuracy)
    evaluate(x, y)  returns (loss, accuracy)
    save(path)      writes the weights as npz under Chainer's names

Both start from the same weights, so they learn the same thing.
"""

import collections
import importlib
import os

import numpy as np

Back = collections.namedtuple("Back", "name Classifier")


def initial_weights(sizes, seed):
    """Return the layers' weights and biases: LeCun's normal distribution and zeros, Chainer's defaults."""
    random = np.random.RandomState(seed)
    weights = {}
    for number, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:]), start=1):
        scale = np.sqrt(1 / fan_in)
        weights[f"predictor/l{number}/W"] = (random.standard_normal((fan_out, fan_in)) * scale).astype(np.float32)
        weights[f"predictor/l{number}/b"] = np.zeros(fan_out, np.float32)
    return weights


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
