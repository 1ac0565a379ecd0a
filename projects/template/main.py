"""Fits a polynomial to noisy points of a sine curve: a stand-in for your own program.

It shows all that mlfnode asks of a program: options on the command line, a number to
compare trials by in $MLF_METRICS, files to keep in a folder, and a state in $MLF_CHECKPOINT
from which it continues after a stop. Standard library only.
"""

import argparse
import json
import math
import os
import random
import signal
import sys


def parse():
    """Return the options; mlfnode passes each parameter as --key=value."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--degree", type=int, default=3, help="of the polynomial")
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation of the noise")
    parser.add_argument("--points", type=int, default=200, help="how many points to fit to")
    parser.add_argument("--rounds", type=int, default=20, help="fits to as many sets of points, of which the mean counts")
    parser.add_argument("--seed", type=int, default=1, help="of the noise")
    return parser.parse_args()


def sample(options, number=0):
    """Return points x in [-1, 1] and noisy values of a sine curve there; each number gives another noise."""
    noise = random.Random(options.seed + 1_000_000 * number)
    xs = [2 * i / (options.points - 1) - 1 for i in range(options.points)]
    return xs, [math.sin(math.pi * x) + noise.gauss(0, options.noise) for x in xs]


def fit(xs, ys, degree):
    """Return the coefficients, constant first, with the least squared error."""
    size = degree + 1
    rows = [[sum(x ** (i + j) for x in xs) for j in range(size)] for i in range(size)]
    return solve(rows, [sum(y * x**i for x, y in zip(xs, ys)) for i in range(size)])


def solve(rows, right):
    """Solve a system of linear equations by elimination, the largest pivot first."""
    table = [row + [value] for row, value in zip(rows, right)]
    for column in range(len(table)):
        pivot = max(range(column, len(table)), key=lambda row: abs(table[row][column]))
        table[column], table[pivot] = table[pivot], table[column]
        for row in range(len(table)):
            if row != column:
                factor = table[row][column] / table[column][column]
                table[row] = [a - factor * b for a, b in zip(table[row], table[column])]
    return [row[-1] / row[i] for i, row in enumerate(table)]


def error(coefficients, xs):
    """Return the root of the mean squared distance from the curve without noise."""
    squares = [(sum(c * x**i for i, c in enumerate(coefficients)) - math.sin(math.pi * x)) ** 2 for x in xs]
    return math.sqrt(sum(squares) / len(squares))


def report(metrics):
    """Print the metrics and hand them to mlfnode as a JSON line."""
    print(json.dumps(metrics))
    path = os.environ.get("MLF_METRICS")
    if path:
        with open(path, "a") as file:
            file.write(json.dumps(metrics) + "\n")


def save(coefficients, folder="result"):
    """Leave a file that project.yaml names as an artifact."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "coefficients.json"), "w") as file:
        json.dump(coefficients, file)


class State:
    """The progress so far. It is kept in $MLF_CHECKPOINT, so that a stopped trial continues where it was."""

    def __init__(self, degree):
        self.done, self.total = 0, [0.0] * (degree + 1)
        self.path = os.path.join(os.environ.get("MLF_CHECKPOINT", ""), "state.json")
        self.stopping = False
        if "MLF_CHECKPOINT" in os.environ:
            signal.signal(signal.SIGTERM, self.notice)
        if "MLF_RESUME" in os.environ and os.path.exists(self.path):  # the first save may have been interrupted
            with open(self.path) as file:
                self.done, self.total = json.load(file)

    def notice(self, *_):
        """Remember that mlfnode wants the program to end. It is saved in the loop: a handler may run in the middle of anything."""
        self.stopping = True

    def save(self):
        """Write to another name and rename, so that a killed process leaves a complete file."""
        if "MLF_CHECKPOINT" in os.environ:
            with open(self.path + ".tmp", "w") as file:
                json.dump([self.done, self.total], file)
            os.replace(self.path + ".tmp", self.path)


def main():
    """Fit, measure, report and save."""
    options = parse()
    state = State(options.degree)
    while state.done < options.rounds:
        xs, ys = sample(options, state.done)
        state.total = [a + b for a, b in zip(state.total, fit(xs, ys, options.degree))]
        state.done += 1
        state.save()
        if state.stopping and state.done < options.rounds:
            sys.exit(85)  # saved; run me again
    coefficients = [total / options.rounds for total in state.total]
    report({"error": error(coefficients, sample(options)[0])})
    save(coefficients)


if __name__ == "__main__":
    main()
