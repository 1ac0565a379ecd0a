"""Classifies short texts with a bag-of-words convolutional network and measures it by cross-validation.

    python3 bowcnn.py --maxiter=3 --minibatchsize=50 --nfolds=2 --dataset=source --jsonresult=result.json
"""

import argparse
import json
import os
import time

import numpy as np

import corpus
import network
import words

EVALUATION_BATCH = 500


def parse(arguments):
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maxiter", type=at_least(1), default=3, help="passes over the training texts")
    parser.add_argument("--minibatchsize", type=at_least(1), default=50, help="texts per minibatch")
    parser.add_argument("--nfolds", type=at_least(2), default=2, help="parts, each of which is tested once")
    parser.add_argument("--dataset", choices=["source", "sentiment", "docstrings"], default="source")
    parser.add_argument("--jsonresult", default="result.json", help="file for the results")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights, the order and the folds")
    return parser.parse_args(arguments)


def at_least(least):
    """Return a parser of whole numbers not below the least."""

    def parser(text):
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return number

    return parser


def folds(count, nfolds, seed):
    """Yield (numbers to train on, numbers to test on); every number is tested once."""
    parts = np.array_split(np.random.RandomState(seed).permutation(count), nfolds)
    for number, part in enumerate(parts):
        yield np.concatenate(parts[:number] + parts[number + 1 :]), part


def train(model, x, y, options):
    """Train for the passes asked; return the mean loss of the last."""
    random = np.random.RandomState(options.seed)
    for _ in range(options.maxiter):
        order = random.permutation(len(y))
        batches = [order[start : start + options.minibatchsize] for start in range(0, len(order), options.minibatchsize)]
        losses = [model.train(x[batch], y[batch])[0] for batch in batches]
    return float(np.mean(losses))


def accuracy(model, x, y):
    """Return the share of the texts that get the right class."""
    slices = [slice(start, start + EVALUATION_BATCH) for start in range(0, len(y), EVALUATION_BATCH)]
    return float(sum(model.evaluate(x[part], y[part])[1] * len(y[part]) for part in slices) / len(y))


def run_fold(data, back, options, learn, test):
    """Train on one part and test on the other; the test's words are unknown to the vocabulary."""
    labels = np.array(data.labels, np.int32)
    numbers = words.vocabulary([data.texts[index] for index in learn])
    model = back.Classifier(network.initial_weights(len(numbers), len(data.classes), options.seed))
    loss = train(model, words.encode([data.texts[index] for index in learn], numbers), labels[learn], options)
    return {"loss": loss, "accuracy": accuracy(model, words.encode([data.texts[index] for index in test], numbers), labels[test])}


def cross_validate(data, back, options):
    """Run every fold, printing each as it ends."""
    results = []
    for learn, test in folds(len(data.labels), options.nfolds, options.seed):
        results.append(run_fold(data, back, options, learn, test))
        print(f"fold {len(results)}/{options.nfolds}: loss {results[-1]['loss']:.4f}, accuracy {results[-1]['accuracy']:.4f}", flush=True)
    return results


def summarise(results, data, seconds):
    """Return the numbers by which trials are compared."""
    accuracies = [result["accuracy"] for result in results]
    return {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_std": float(np.std(accuracies)),
        "loss": float(np.mean([result["loss"] for result in results])),
        "chance": 1 / len(data.classes),
        "seconds": seconds,
    }


def write(summary, results, data, back, path):
    """Leave everything in the JSON file, and the summary as a line for mlfnode where it asked for one."""
    with open(path, "w") as file:
        json.dump({**summary, "folds": results, "dataset": data.name, "classes": data.classes, "backend": back.name}, file, indent=4)
    metrics = os.environ.get("MLF_METRICS")
    if metrics:
        with open(metrics, "a") as file:
            file.write(json.dumps(summary) + "\n")


def main(arguments=None):
    """Run the program."""
    options = parse(arguments)
    data = corpus.load(options.dataset, options.seed)
    back = network.choose_back_end()
    print(f"# back end: {back.name}")
    print(f"# data: {data.name}, {len(data.labels)} texts in {len(data.classes)} classes ({', '.join(data.classes)})")
    started = time.monotonic()
    results = cross_validate(data, back, options)
    summary = summarise(results, data, time.monotonic() - started)
    print(f"mean accuracy {summary['accuracy']:.4f} (chance {summary['chance']:.4f})")
    write(summary, results, data, back, options.jsonresult)


if __name__ == "__main__":
    main()
