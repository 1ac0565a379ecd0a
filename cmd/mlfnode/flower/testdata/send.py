"""Sends one task and prints its id."""
import sys

from tasks import app

print(app.send_task(sys.argv[1], args=[1] if sys.argv[1] == "proj.train" else []).id)
