"""Trains the network with Chainer, on the CPU or, with CuPy, on a GPU."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Chainer's own imports are deprecated by newer libraries
    import chainer
    import chainer.functions as F
    import chainer.links as L

NAME = f"Chainer {chainer.__version__}"


class Perceptron(chainer.Chain):
    """Three fully connected layers."""

    def __init__(self, weights):
        super().__init__()
        with self.init_scope():
            for number in (1, 2, 3):
                layer = weights[f"predictor/l{number}/W"]
                setattr(self, f"l{number}", L.Linear(layer.shape[1], layer.shape[0], initialW=layer))

    def forward(self, x):
        """Return the ten outputs before softmax."""
        return self.l3(F.relu(self.l2(F.relu(self.l1(x)))))


class Classifier:
    """A Chainer classifier with its optimizer."""

    def __init__(self, weights, gpu):
        if gpu >= 0 and not chainer.backends.cuda.available:
            raise RuntimeError(f"--gpu={gpu} needs CuPy and a GPU, which Chainer does not find here. Install CuPy, or use --gpu=-1 for the CPU.")
        self.device = chainer.get_device(f"@cupy:{gpu}" if gpu >= 0 else "@numpy")
        self.device.use()
        self.model = L.Classifier(Perceptron(weights))
        self.model.to_device(self.device)
        self.optimizer = chainer.optimizers.Adam().setup(self.model)

    def measured(self):
        """Return loss and accuracy of the last forward pass as numbers."""
        return float(self.model.loss.array), float(self.model.accuracy.array)

    def train(self, x, y):
        """Update on one minibatch."""
        self.optimizer.update(self.model, self.device.send(x), self.device.send(y))
        return self.measured()

    def evaluate(self, x, y):
        """Measure without learning."""
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            self.model(self.device.send(x), self.device.send(y))
        return self.measured()

    def state(self):
        """Return all that learning goes on from, as arrays by name."""
        arrays = chainer.serializers.DictionarySerializer()
        arrays["model"].save(self.model)
        arrays["optimizer"].save(self.optimizer)
        return arrays.target

    def restore(self, arrays):
        """Go on from a state."""
        chainer.serializers.NpzDeserializer(arrays, "model/").load(self.model)
        chainer.serializers.NpzDeserializer(arrays, "optimizer/").load(self.optimizer)

    def save(self, path):
        """Write the weights as npz."""
        chainer.serializers.save_npz(path, self.model)
