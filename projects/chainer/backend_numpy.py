"""Trains the network with NumPy alone: the same layers, loss and optimizer, written out."""

import numpy as np

NAME = f"NumPy {np.__version__}"


class Adam:
    """Kingma and Ba's optimizer with Chainer's defaults; updates the arrays in place."""

    def __init__(self, weights, alpha=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
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
    """Three fully connected layers with ReLU between them."""

    LAYERS = (1, 2, 3)

    def __init__(self, weights, gpu):
        if gpu >= 0:
            raise RuntimeError(f"--gpu={gpu} needs Chainer and CuPy, and only NumPy is here. Use --gpu=-1 for the CPU.")
        self.weights = {name: value.copy() for name, value in weights.items()}
        self.optimizer = Adam(self.weights)

    def layer(self, number):
        """Return the weights and the bias of a layer."""
        return self.weights[f"predictor/l{number}/W"], self.weights[f"predictor/l{number}/b"]

    def forward(self, x):
        """Return the inputs of every layer, the last entry being the outputs."""
        values = [x]
        for number in self.LAYERS:
            weight, bias = self.layer(number)
            value = values[-1] @ weight.T + bias
            values.append(value if number == self.LAYERS[-1] else np.maximum(value, 0))
        return values

    def backward(self, values, gradient):
        """Return the gradients by weight name, from the gradient by the outputs."""
        gradients = {}
        for number in reversed(self.LAYERS):
            inputs = values[number - 1]
            gradients[f"predictor/l{number}/W"] = gradient.T @ inputs
            gradients[f"predictor/l{number}/b"] = gradient.sum(axis=0)
            gradient = (gradient @ self.layer(number)[0]) * (inputs > 0)
        return gradients

    def train(self, x, y):
        """Update on one minibatch."""
        values = self.forward(x)
        loss, accuracy, gradient = softmax_cross_entropy(values[-1], y)
        self.optimizer.update(self.backward(values, gradient))
        return loss, accuracy

    def evaluate(self, x, y):
        """Measure without learning."""
        return softmax_cross_entropy(self.forward(x)[-1], y)[:2]

    def state(self):
        """Return all that learning goes on from, as arrays by name."""
        arrays = {"steps": np.array(self.optimizer.steps)}
        for part, values in (("weights", self.weights), ("first", self.optimizer.first), ("second", self.optimizer.second)):
            arrays.update({f"{part}:{name}": value for name, value in values.items()})
        return arrays

    def restore(self, arrays):
        """Go on from a state."""
        self.optimizer.steps = int(arrays["steps"])
        for part, values in (("weights", self.weights), ("first", self.optimizer.first), ("second", self.optimizer.second)):
            for name in values:
                values[name][...] = arrays[f"{part}:{name}"]

    def save(self, path):
        """Write the weights as npz."""
        np.savez(path, **self.weights)
