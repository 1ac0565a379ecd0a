"""Texts as arrays of word numbers."""

import collections
import re

import numpy as np

TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+|[^\sa-z0-9]")
LENGTH = 40  # tokens of a text that are looked at
PADDING = -1  # stands for no word: unknown ones and the rest of a short text
SIZE = 3000  # words of a vocabulary


def tokens(text):
    """Return the words, numbers and marks of a text."""
    return TOKEN.findall(text.lower())[:LENGTH]


def vocabulary(texts):
    """Return the numbers of the most frequent tokens; equally frequent ones in alphabetical order."""
    counts = collections.Counter(token for text in texts for token in tokens(text))
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return {token: number for number, token in enumerate(ranked[:SIZE])}


def encode(texts, numbers):
    """Return one row of word numbers for each text."""
    rows = np.full((len(texts), LENGTH), PADDING, np.int32)
    for row, text in zip(rows, texts):
        found = [numbers[token] for token in tokens(text) if token in numbers]
        row[: len(found)] = found
    return rows
