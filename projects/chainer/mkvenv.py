"""Makes the virtual environment of a project, once per node and set of requirements.

The environment lives in $MLF_CACHE under a key that depends on the Python and on the
requirements only, so editing the project's programs never installs anything again.
It is built in a temporary folder and renamed when whole, under a file lock: a crash
leaves no half-made environment and two nodes may do this at the same time.

    requirements.txt           NumPy and the data: wanted always
    requirements-chainer.txt   Chainer: wanted where the Python is old enough

Where the package index can't be reached, an installed NumPy serves; where there is
none, `prepare` says what to install. Works with Python 3.8 and later, standard library only.
"""

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

LINK = ".venv"
BASE = "requirements.txt"
CHAINER = "requirements-chainer.txt"
NEWEST_FOR_CHAINER = (3, 11)  # Chainer 7 needs NumPy < 1.24, which has no later wheels
BUILD_PINS = ["setuptools==65.5.1", "wheel==0.41.3"]  # Chainer is a source package and needs pkg_resources
# Seconds and tries per request: a closed network is noticed in a moment, a slow one still works.
PIP_OPTIONS = ["--no-input", "--disable-pip-version-check", "--timeout", "15", "--retries", "1", "--quiet"]


class Unavailable(Exception):
    """Says to the user what is missing and what to do about it."""


def cache_folder():
    """Return the persistent folder of this node, made if needed."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.environ.get("MLF_CACHE") or os.path.join(home, "mlfnode", "setup")
    os.makedirs(folder, exist_ok=True)
    return os.path.abspath(folder)


def version_of(python):
    """Return (major, minor) of an interpreter, or None if it does not start."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(int(part) for part in done.stdout.split())


def pick_python():
    """Return $MLF_PYTHON, else this Python if Chainer runs on it, else an older one found beside it, else this one."""
    named = os.environ.get("MLF_PYTHON")
    if named and version_of(named) is None:
        raise Unavailable(f"MLF_PYTHON is {named}, which does not start. Name a Python 3.8 or later.")
    if named or sys.version_info[:2] <= NEWEST_FOR_CHAINER:
        return named or sys.executable
    older = (shutil.which(f"python3.{minor}") for minor in range(NEWEST_FOR_CHAINER[1], 7, -1))
    return next((python for python in older if python and version_of(python)), sys.executable)


def key_of(python):
    """Return the name under which environments of this Python and these requirements are kept."""
    digest = hashlib.sha256()
    for name in (BASE, CHAINER):
        with open(name, "rb") as file:
            digest.update(file.read() + b"\0")
    digest.update(repr((BUILD_PINS, python, version_of(python))).encode())
    return "venv-" + digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(path):
    """Hold an exclusive lock; the system frees it when the process dies."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def imports(python, module):
    """Tell whether the interpreter can import the module."""
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def make_venv(python, folder):
    """Make an empty environment without pip, which Debian's Python can always do."""
    done = subprocess.run([python, "-m", "venv", "--without-pip", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{python} cannot make a virtual environment. On Debian or Ubuntu: apt install python3-venv.")


def pip_command(python, folder):
    """Return the start of a pip command that installs into the environment.

    The outer pip serves where it is new enough to (22.3), else the one that Python carries."""
    inner = interpreter(folder)
    outer = [python, "-m", "pip", "--python", inner]
    if subprocess.run([*outer, "--version"], capture_output=True, check=False).returncode == 0:
        return outer
    if subprocess.run([inner, "-m", "ensurepip"], capture_output=True, check=False).returncode == 0:
        return [inner, "-m", "pip"]
    raise Unavailable(f"{python} has no pip. On Debian or Ubuntu: apt install python3-pip python3-venv.")


def pip_install(pip, *arguments):
    """Install pinned packages and nothing else; return an empty string, or pip's last lines when it failed."""
    done = subprocess.run([*pip, "install", *PIP_OPTIONS, "--no-deps", *arguments], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else "\n".join(done.stderr.strip().splitlines()[-5:]) or "pip failed"


def install_chainer(pip, python):
    """Add Chainer where it can run; its absence is not a failure."""
    if version_of(python) > NEWEST_FOR_CHAINER:
        return
    problem = pip_install(pip, *BUILD_PINS) or pip_install(pip, "--no-build-isolation", "-r", CHAINER)
    if problem:
        print(f"setup: Chainer could not be installed, the NumPy back end serves; pip said:\n{problem}")


def install_all(python, folder):
    """Fill a new environment from the package index; return pip's words where that fails."""
    make_venv(python, folder)
    pip = pip_command(python, folder)
    problem = pip_install(pip, "-r", BASE)
    if not problem:
        install_chainer(pip, python)
    return problem


def borrow_numpy(python, folder):
    """Make an environment that shows the folder from which the interpreter itself imports NumPy.

    Not --system-site-packages: that shows nothing of an interpreter that is a virtual environment's."""
    make_venv(python, folder)
    code = "import numpy, os; print(os.path.dirname(os.path.dirname(numpy.__file__)))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    site = glob.glob(os.path.join(glob.escape(folder), "lib", "python3*", "site-packages"))[0]
    with open(os.path.join(site, "borrowed.pth"), "w") as file:
        file.write(done.stdout)


def build(python, folder):
    """Build the environment in the folder: from the index, else around the NumPy that is installed."""
    try:
        problem = install_all(python, folder)
    except Unavailable as missing:
        problem = str(missing)
    if not problem:
        return
    if not imports(python, "numpy"):
        raise Unavailable(
            f"The packages could not be installed, and {python} has no NumPy to use instead. "
            f"Check the network or PIP_INDEX_URL, or install NumPy (apt install python3-numpy), then try again. pip said:\n{problem}"
        )
    print("setup: the package index can't be reached; using the installed NumPy")
    shutil.rmtree(folder)
    borrow_numpy(python, folder)


def discard_remains(final):
    """Remove what a crashed set-up left behind, and a folder that does not work any more."""
    for left in [final, *glob.glob(glob.escape(final) + ".tmp-*")]:
        shutil.rmtree(left, ignore_errors=True)


def build_once(final, works, build):
    """Make the folder `final` by build(temporary folder), unless works(final) says that it is there already."""
    with locked(final + ".lock"):
        if works(final):
            return
        discard_remains(final)
        folder = tempfile.mkdtemp(prefix=os.path.basename(final) + ".tmp-", dir=os.path.dirname(final))
        try:
            os.chmod(folder, 0o755)
            build(folder)
            os.rename(folder, final)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def interpreter(venv):
    """Return the path of an environment's Python."""
    return os.path.join(venv, "bin", "python3")


def works(venv):
    """Tell whether the environment is there and has NumPy."""
    return os.path.exists(interpreter(venv)) and imports(interpreter(venv), "numpy")


def ensure(python):
    """Return the environment of this Python and these requirements, built if it is not there yet."""
    final = os.path.join(cache_folder(), key_of(python))
    build_once(final, works, lambda folder: build(python, folder))
    return final


def link(target, name):
    """Point the symlink `name` at the target in one step, replacing an old one."""
    temporary = f"{name}.{os.getpid()}"
    os.symlink(target, temporary)
    os.replace(temporary, name)


def describe(venv):
    """Say which back end the environment gives, and how to get the better one."""
    inner = interpreter(venv)
    if imports(inner, "chainer"):
        return "Chainer"
    if version_of(inner) > NEWEST_FOR_CHAINER:
        return "NumPy; Chainer needs Python 3.11 or older, which MLF_PYTHON can name"
    return f"NumPy; to try Chainer again remove {venv}"


def prepare():
    """Make `.venv` in this folder and say which back end it gives."""
    venv = ensure(pick_python())
    link(venv, LINK)
    print(f"setup: ready ({describe(venv)})")
