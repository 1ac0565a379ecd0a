"""Digits drawn from a small font, shifted, dimmed and overlaid with noise: the last resort where no real ones are."""

import numpy as np

COUNT = 6000
SIDE = 8
GLYPHS = """
.##.  ..#.  .##.  ###.  #..#  ####  .##.  ####  .##.  .##.
#..#  .##.  #..#  ...#  #..#  #...  #...  ...#  #..#  #..#
#..#  ..#.  ...#  .##.  ####  ###.  ###.  ..#.  .##.  .###
#..#  ..#.  .##.  ...#  ...#  ...#  #..#  ..#.  #..#  ...#
#..#  ..#.  #...  ...#  ...#  ...#  #..#  .#..  #..#  ...#
.##.  .###  ####  ###.  ...#  ###.  .##.  .#..  .##.  .##.
"""


def glyphs():
    """Return the ten digits as arrays of 0 and 1."""
    rows = [line.split() for line in GLYPHS.split("\n") if line]
    return [np.array([[mark == "#" for mark in row[digit]] for row in rows], np.float32) for digit in range(10)]


def draw(seed):
    """Return images as rows in [0, 1] and their labels; the same for the same seed."""
    random = np.random.RandomState(seed)
    font = glyphs()
    height, width = font[0].shape
    labels = (np.arange(COUNT) % 10).astype(np.int32)
    images = random.uniform(0, 0.3, (COUNT, SIDE, SIDE)).astype(np.float32)
    for image, label in zip(images, labels):
        top, left = random.randint(0, SIDE - height + 1), random.randint(1, SIDE - width)
        image[top : top + height, left : left + width] += font[label] * random.uniform(0.6, 1)
    return images.clip(0, 1).reshape(COUNT, -1), labels
