"""The tasks that are compared with trials."""
import os
import time

from celery import Celery

app = Celery("proj", broker=os.environ["BROKER"], backend="file://" + os.environ["RESULTS"])
app.conf.update(task_track_started=True, task_send_sent_event=True)


@app.task(name="proj.train")
def train(i):
    return {"loss": i}


@app.task(name="proj.fail")
def fail():
    raise ValueError("no")


@app.task(name="proj.wait")
def wait():
    time.sleep(600)
