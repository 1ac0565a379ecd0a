"""Trains the network with Chainer."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Chainer's own imports are deprecated by newer libraries
    import chainer
    import chainer.functions as F
    import chainer.links as L

import network
import words

NAME = f"Chainer {chainer.__version__}"


class BagOfWordsCNN(chainer.Chain):
    """A convolution over bags of neighbouring words, max pooling and a linear layer."""

    def __init__(self, weights):
        super().__init__()
        table, output = weights["words/W"], weights["output/W"]
        with self.init_scope():
            self.words = L.EmbedID(*table.shape, initialW=table, ignore_label=words.PADDING)
            self.bias = chainer.Parameter(weights["words/b"].copy())
            self.output = L.Linear(output.shape[1], output.shape[0], initialW=output)

    def forward(self, x):
        """Return the outputs before softmax."""
        rows = self.words(x)
        regions = rows.shape[1] - network.REGION + 1
        bags = sum(rows[:, start : start + regions] for start in range(network.REGION))
        seen = F.relu(bags + F.broadcast_to(self.bias, bags.shape))
        pooled = F.max_pooling_1d(F.transpose(seen, (0, 2, 1)), regions)
        return self.output(F.squeeze(pooled, axis=2))


class Classifier:
    """A Chainer classifier with its optimizer."""

    def __init__(self, weights):
        self.model = L.Classifier(BagOfWordsCNN(weights))
        self.optimizer = chainer.optimizers.Adam(alpha=network.RATE).setup(self.model)

    def measured(self):
        """Return loss and accuracy of the last forward pass as numbers."""
        return float(self.model.loss.array), float(self.model.accuracy.array)

    def train(self, x, y):
        """Update on one minibatch."""
        self.optimizer.update(self.model, x, y)
        return self.measured()

    def evaluate(self, x, y):
        """Measure without learning."""
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            self.model(x, y)
        return self.measured()
