"""Trains the network with NumPy alone: the same layers, loss and optimizer, written out."""

import numpy as np

import network
import words

NAME = f"NumPy {np.__version__}"


class Adam:
    """Kingma and Ba's optimizer with Chainer's defaults; updates the arrays in place."""

    def __init__(self, weights, alpha, beta1=0.9, beta2=0.999, eps=1e-8):
        self.alpha, self.beta1, self.beta2, self.eps = alpha, beta1, beta2, eps
        self.weights = weights
        self.first = {name: np.zeros_like(value) for name, value in weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in weights.items()}
        self.steps = 0

    def update(self, gradients):
        """Take one step against the gradients, given by name."""
        self.steps += 1
        rate = self.alpha * np.sqrt(1 - self.beta2**self.steps) / (1 - self.beta1**self.steps)
        for name, gradient in gradients.items():
            first, second = self.first[name], self.second[name]
            first += (1 - self.beta1) * (gradient - first)
            second += (1 - self.beta2) * (gradient * gradient - second)
            self.weights[name] -= np.float32(rate) * first / (np.sqrt(second) + np.float32(self.eps))


def softmax_cross_entropy(outputs, y):
    """Return the mean loss, the accuracy and the loss's gradient by the outputs."""
    rows = np.arange(len(y))
    logs = outputs - outputs.max(axis=1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    gradient = np.exp(logs)
    gradient[rows, y] -= 1
    accuracy = (outputs.argmax(axis=1) == y).mean()
    return float(-logs[rows, y].mean()), float(accuracy), gradient / np.float32(len(y))


class Classifier:
    """A convolution over bags of neighbouring words, max pooling and a linear layer."""

    def __init__(self, weights):
        self.weights = {name: value.copy() for name, value in weights.items()}
        self.optimizer = Adam(self.weights, network.RATE)

    def seen(self, x):
        """Return what each filter answers at each region of each text."""
        rows = self.weights["words/W"][x]
        rows[x == words.PADDING] = 0
        regions = x.shape[1] - network.REGION + 1
        bags = sum(rows[:, start : start + regions] for start in range(network.REGION))
        return np.maximum(bags + self.weights["words/b"], 0)

    def outputs(self, pooled):
        """Return the outputs before softmax."""
        return pooled @ self.weights["output/W"].T + self.weights["output/b"]

    def words_gradient(self, x, strongest, gradient):
        """Return the table's gradient: only the words of each filter's strongest region have one.

        Entries are added up by counting with weights, which is far quicker than adding one by one."""
        size, units = self.weights["words/W"].shape
        total = np.zeros(size * units)
        for start in range(network.REGION):
            number = np.take_along_axis(x, strongest + start, axis=1)
            there = number != words.PADDING
            cells = (number * units + np.arange(units))[there]
            total += np.bincount(cells, gradient[there], size * units)
        return total.reshape(size, units).astype(np.float32)

    def train(self, x, y):
        """Update on one minibatch."""
        seen = self.seen(x)
        strongest, pooled = seen.argmax(axis=1), seen.max(axis=1)
        loss, accuracy, gradient = softmax_cross_entropy(self.outputs(pooled), y)
        inner = gradient @ self.weights["output/W"] * (pooled > 0)
        self.optimizer.update({
            "output/W": gradient.T @ pooled,
            "output/b": gradient.sum(axis=0),
            "words/W": self.words_gradient(x, strongest, inner),
            "words/b": inner.sum(axis=0),
        })
        return loss, accuracy

    def evaluate(self, x, y):
        """Measure without learning."""
        return softmax_cross_entropy(self.outputs(self.seen(x).max(axis=1)), y)[:2]
