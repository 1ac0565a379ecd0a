"""Tests of the idx reader and the download: python3 -m unittest in this folder."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import struct
import tempfile
import threading
import unittest
from unittest import mock

import mnist


def idx(shape, data):
    """Return the bytes of an idx file."""
    return bytes([0, 0, mnist.UNSIGNED_BYTE, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_):
        """Say nothing."""


@contextlib.contextmanager
def serving(folder):
    """Serve a folder on a free loopback port; gives its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class MnistTest(unittest.TestCase):
    """MNIST's files."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name

    def write(self, name, data):
        """Write a file, packed if its name says so; return its path."""
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    def test_reads_plain_and_packed(self):
        for name in ("images", "images.gz"):
            path = self.write(name, idx((2, 1, 3), b"abcdef"))
            self.assertEqual(mnist.read_idx(path), ((2, 1, 3), b"abcdef"))

    def test_refuses_what_is_no_idx_file(self):
        whole = idx((2, 3), b"abcdef")
        for data in (b"", b"\0\0", b"hello world", whole[:7], whole[:-1], whole + b"x", b"\0\0\x0d\x01" + whole[4:]):
            with self.assertRaises(ValueError, msg=repr(data)):
                mnist.read_idx(self.write("bad", data))

    def test_loads_and_checks_the_four_files(self):
        source, target = os.path.join(self.folder, "source"), os.path.join(self.folder, "target")
        os.mkdir(source)
        sums = {}
        for name in mnist.FILES:
            path = self.write(f"source/{name}.gz", idx((1,), b"7"))
            with open(path, "rb") as file:
                sums[name] = hashlib.sha256(file.read()).hexdigest()
        with serving(source) as url:
            with self.assertRaises(ValueError):
                mnist.download(url, target)
            self.assertEqual(os.listdir(target), [])
            with mock.patch.dict(mnist.FILES, sums):
                mnist.download(url, target)
        self.assertTrue(mnist.complete(target))


if __name__ == "__main__":
    unittest.main()
