"""MNIST's four files: loading them over the network and reading their idx format.

The idx format (http://yann.lecun.com/exdb/mnist): two zero bytes, a type byte (8 is unsigned byte), the number
of dimensions, each dimension as a big-endian 32-bit number, then the values, last dimension fastest.
"""

import gzip
import hashlib
import os
import struct
import urllib.request

FOLDER = "mnist"  # what the setup step links in the project's folder
TIMEOUT = 15  # seconds without an answer
# SHA-256 of the packed files as published.
FILES = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
UNSIGNED_BYTE = 8


def find(folder, name):
    """Return the path of a file, packed or plain, or None."""
    paths = (os.path.join(folder, name + ending) for ending in ("", ".gz"))
    return next((path for path in paths if os.path.exists(path)), None)


def complete(folder):
    """Tell whether all four files are in the folder."""
    return all(find(folder, name) for name in FILES)


def read_idx(path):
    """Return the dimensions and the bytes of an idx file, packed or plain; ValueError if it is not one."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        data = file.read()
    if len(data) < 4 or data[:3] != bytes([0, 0, UNSIGNED_BYTE]):
        raise ValueError(f"{path} is not an idx file of bytes")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError(f"{path} ends within its header")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    size = 1
    for length in shape:
        size *= length
    if len(data) != start + size:
        raise ValueError(f"{path} holds {len(data) - start} values, its header promises {size}")
    return shape, data[start:]


def fetch(url, path, checksum):
    """Load one file; it appears under its name only when its checksum is right."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        data = answer.read()
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ValueError(f"{url} has a wrong checksum")
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def download(url, folder):
    """Load what the folder lacks of the four files; OSError or ValueError where that fails."""
    os.makedirs(folder, exist_ok=True)
    for name, checksum in FILES.items():
        if not find(folder, name):
            fetch(f"{url.rstrip('/')}/{name}.gz", os.path.join(folder, name + ".gz"), checksum)
