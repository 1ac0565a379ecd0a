"""Saves the training after each epoch and goes on from there: mlfnode's $MLF_CHECKPOINT, $MLF_RESUME and notice before a stop."""

import json
import os
import signal

import numpy as np

EXIT_SAVED = 85  # tells mlfnode that the state is saved and the program is to be run again


class Checkpoint:
    """The state of a training in one file. Without $MLF_CHECKPOINT nothing is saved, and a signal ends the program as ever."""

    def __init__(self):
        folder = os.environ.get("MLF_CHECKPOINT")
        self.path = os.path.join(folder, "state.npz") if folder else None
        self.stopping = False
        if folder:
            signal.signal(signal.SIGTERM, self.notice)

    def notice(self, *_):
        """Remember that the program is to end. Saving waits for the end of the epoch: a handler may run in the middle of a step."""
        self.stopping = True

    def load(self, model, log):
        """Go on from what an earlier attempt has saved; return how many epochs it had done."""
        if not os.environ.get("MLF_RESUME") or not os.path.exists(self.path):
            return 0
        with np.load(self.path) as state:
            model.restore(state)
            log.restore(json.loads(str(state["log"])))
            return int(state["epoch"])

    def save(self, epoch, model, log):
        """Replace the file in one step, so that a kill at any moment leaves a whole one."""
        if self.path:
            with open(self.path + ".tmp", "wb") as file:
                np.savez(file, epoch=epoch, log=json.dumps(log.entries), **model.state())
            os.replace(self.path + ".tmp", self.path)
