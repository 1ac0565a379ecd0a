"""The setup step: the virtual environment, and MNIST where $MNIST_URL names a place to load it from."""

import os
import sys

import mkvenv
import mnist


def prepare_mnist():
    """Load the four MNIST files into the node's cache and link them as ./mnist."""
    url = os.environ.get("MNIST_URL")
    if not url:
        return
    folder = os.path.join(mkvenv.cache_folder(), "mnist")
    try:
        mnist.download(url, folder)
    except (OSError, ValueError) as problem:
        print(f"setup: MNIST could not be loaded from {url} ({problem}); scikit-learn's digits serve")
        return
    mkvenv.link(folder, mnist.FOLDER)


def main():
    """Prepare everything; exit 1 with advice where something is missing."""
    try:
        mkvenv.prepare()
    except mkvenv.Unavailable as missing:
        sys.exit(f"setup: {missing}")
    prepare_mnist()


if __name__ == "__main__":
    main()
