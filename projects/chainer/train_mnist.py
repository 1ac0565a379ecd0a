"""Trains a classifier of handwritten digits, with the options of Chainer's MNIST example.

    python3 train_mnist.py --batchsize=100 --epoch=20 --unit=1000 --gpu=-1 --out=result

Leaves `log` (JSON) and `snapshot.npz` in the output folder.
"""

import argparse
import os
import sys

import numpy as np

import checkpoint
import dataset
import network
import report

EVALUATION_BATCH = 1000


def parse(arguments):
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-b", "--batchsize", type=positive, default=100, help="images per minibatch")
    parser.add_argument("-e", "--epoch", type=positive, default=20, help="passes over the training images")
    parser.add_argument("-u", "--unit", type=positive, default=1000, help="units of each hidden layer")
    parser.add_argument("-g", "--gpu", type=int, default=-1, help="number of the GPU; -1 is the CPU")
    parser.add_argument("-o", "--out", default="result", help="folder for the log and the snapshot")
    parser.add_argument("--data", default="", help="folder with MNIST's idx files, plain or .gz (default $MNIST_DIR)")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights, the order and the split")
    return parser.parse_args(arguments)


def positive(text):
    """Return a whole number above zero."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def mean(parts):
    """Return mean loss and accuracy of (count, (loss, accuracy)) pairs, weighted by count."""
    counts, values = zip(*parts)
    return tuple(float(value) for value in np.average(values, axis=0, weights=counts))


def train_epoch(model, data, batchsize, order):
    """Train once on every image, in the order given."""
    batches = (order[start : start + batchsize] for start in range(0, len(order), batchsize))
    return mean([(len(batch), model.train(data.train_x[batch], data.train_y[batch])) for batch in batches])


def evaluate(model, data):
    """Measure on the validation images."""
    slices = (slice(start, start + EVALUATION_BATCH) for start in range(0, len(data.valid_y), EVALUATION_BATCH))
    return mean([(len(data.valid_y[part]), model.evaluate(data.valid_x[part], data.valid_y[part])) for part in slices])


def train(options, data, model):
    """Train for the epochs asked, reporting and saving each, and leave the snapshot."""
    log = report.Report(options.out)
    saved = checkpoint.Checkpoint()
    done = saved.load(model, log)
    random = np.random.RandomState(options.seed)
    per_epoch = -(-len(data.train_y) // options.batchsize)
    for epoch in range(1, options.epoch + 1):
        order = random.permutation(len(data.train_y))
        if epoch <= done:
            continue  # an earlier attempt did it; the order of those to come is as without a stop
        learned = train_epoch(model, data, options.batchsize, order)
        log.add(epoch, epoch * per_epoch, learned, evaluate(model, data))
        saved.save(epoch, model, log)
        if saved.stopping and epoch < options.epoch:
            sys.exit(checkpoint.EXIT_SAVED)
    model.save(os.path.join(options.out, "snapshot.npz"))


def describe(options, data, back):
    """Say what runs on what."""
    print(f"# back end: {back.name}")
    print(f"# data: {data.name}, {len(data.train_y)} to train on, {len(data.valid_y)} to validate on")
    print(f"# unit: {options.unit}, minibatch size: {options.batchsize}, epochs: {options.epoch}, gpu: {options.gpu}")


def main(arguments=None):
    """Run the program; a problem of the user's ends it with one sentence."""
    options = parse(arguments)
    try:
        data = dataset.load(options.data, options.seed)
        back = network.choose_back_end()
        sizes = [data.train_x.shape[1], options.unit, options.unit, dataset.CLASSES]
        model = back.Classifier(network.initial_weights(sizes, options.seed), options.gpu)
    except (OSError, ValueError, RuntimeError) as problem:
        sys.exit(f"train_mnist.py: {problem}")
    describe(options, data, back)
    train(options, data, model)


if __name__ == "__main__":
    main()
