"""Reports of a training in the shapes of Chainer's LogReport and PrintReport, and as $MLF_METRICS."""

import json
import os
import time

COLUMNS = ("epoch", "main/loss", "validation/main/loss", "main/accuracy", "validation/main/accuracy", "elapsed_time")


class Report:
    """Writes one entry per epoch to the log file, the metrics file and the screen."""

    def __init__(self, out):
        os.makedirs(out, exist_ok=True)
        self.path = os.path.join(out, "log")
        self.entries = []
        self.started = time.monotonic()
        print("".join(f"{column:<26}" for column in COLUMNS).rstrip())

    def add(self, epoch, iteration, train, valid):
        """Record an epoch; train and valid are (loss, accuracy)."""
        self.entries.append({
            "main/loss": train[0],
            "main/accuracy": train[1],
            "validation/main/loss": valid[0],
            "validation/main/accuracy": valid[1],
            "epoch": epoch,
            "iteration": iteration,
            "elapsed_time": time.monotonic() - self.started,
        })
        self.write_log()
        self.write_metrics()
        self.print_row()

    def restore(self, entries):
        """Go on after the entries of an earlier attempt."""
        self.entries = entries
        self.started -= entries[-1]["elapsed_time"]
        self.write_log()
        self.write_metrics()

    def write_log(self):
        """Write the whole list again, as LogReport does; a reader never sees half of it."""
        with open(self.path + ".tmp", "w") as file:
            json.dump(self.entries, file, indent=4)
        os.replace(self.path + ".tmp", self.path)

    def write_metrics(self):
        """Append the entry as a JSON line, where mlfnode asked for it."""
        path = os.environ.get("MLF_METRICS")
        if path:
            with open(path, "a") as file:
                file.write(json.dumps(self.entries[-1]) + "\n")

    def print_row(self):
        """Print the entry as a line of the table."""
        entry = self.entries[-1]
        print("".join(f"{entry[column]:<26.6g}" for column in COLUMNS).rstrip(), flush=True)
