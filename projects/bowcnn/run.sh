# Runs a program of this project with the Python that prepare.py made, else the system's.
python=.venv/bin/python3
[ -x "$python" ] || python=python3
exec "$python" -u "$@"
