"""Labelled texts: rated sentences where the setup step could load them, else the docstrings of Python's own library.

    source      where a sentence comes from: tweet, film review, product review or editorial (4 classes)
    sentiment   whether people found it positive or negative (2 classes)
    docstrings  what a paragraph of the library's documentation is about (6 classes); always there
"""

import ast
import collections
import csv
import glob
import os
import random
import re
import sysconfig

FOLDER = "corpus"  # what the setup step links in the project's folder
FILES = {
    "tweet": "tweets_GroundTruth.txt",
    "film": "movieReviewSnippets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "editorial": "nytEditorialSnippets_GroundTruth.txt",
}
TEXTS = 4800  # at most, so that a trial takes seconds
CLEAR_RATING = 1.0  # of -4 to 4: what lies nearer to 0 is neither positive nor negative
SHORTEST = 6  # words of a paragraph
TOPICS = {
    "concurrency": "asyncio concurrent multiprocessing threading queue sched selectors subprocess signal",
    "network": "email http urllib xmlrpc smtplib ftplib imaplib poplib socketserver socket ssl wsgiref mailbox ipaddress",
    "numbers": "statistics fractions decimal _pydecimal random datetime _pydatetime numbers calendar colorsys heapq bisect",
    "testing": "unittest doctest pdb bdb trace profile cProfile timeit traceback pstats tracemalloc",
    "files": "shutil zipfile tarfile pathlib tempfile gzip lzma bz2 csv configparser plistlib shelve dbm os posixpath glob filecmp _pyio",
    "language": "ast inspect dis typing tokenize importlib pkgutil abc dataclasses enum functools contextlib copy types symtable pydoc",
}

# Texts are strings, labels are numbers of classes.
Corpus = collections.namedtuple("Corpus", "name classes texts labels")


def complete(folder):
    """Tell whether all files of rated sentences are in the folder."""
    return all(os.path.exists(os.path.join(folder, name)) for name in FILES.values())


def rated(folder, kind):
    """Return (rating, sentence) pairs of one kind."""
    with open(os.path.join(folder, FILES[kind]), encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(float(row[1]), row[2]) for row in rows if len(row) == 3]


def by_source(folder):
    """Return the sentences by where they come from."""
    return {kind: [text for _, text in rated(folder, kind)] for kind in FILES}


def by_sentiment(folder):
    """Return the sentences with a clear rating by its sign."""
    pairs = [pair for kind in FILES for pair in rated(folder, kind)]
    return {
        "negative": [text for rating, text in pairs if rating <= -CLEAR_RATING],
        "positive": [text for rating, text in pairs if rating >= CLEAR_RATING],
    }


def docstrings(path):
    """Return the docstrings of one source file."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]


def paragraphs(module):
    """Return the paragraphs of a module's or package's docstrings; a module that is not there has none."""
    base = os.path.join(sysconfig.get_path("stdlib"), module)
    paths = sorted(glob.glob(base + ".py") + glob.glob(os.path.join(base, "*.py")))
    texts = [text for path in paths for docstring in docstrings(path) for text in re.split(r"\n\s*\n", docstring)]
    return [text for text in texts if len(text.split()) >= SHORTEST]


def by_topic():
    """Return the paragraphs of the library's documentation by topic, each once."""
    return {topic: sorted({text for module in modules.split() for text in paragraphs(module)}) for topic, modules in TOPICS.items()}


def pick(name, groups, seed):
    """Return an equally large random part of each class, shuffled."""
    choice = random.Random(seed)
    size = min(TEXTS // len(groups), *(len(texts) for texts in groups.values()))
    pairs = [(text, label) for label, texts in enumerate(groups.values()) for text in choice.sample(texts, size)]
    choice.shuffle(pairs)
    texts, labels = zip(*pairs)
    return Corpus(name, list(groups), texts, labels)


def load(name, seed, folder=FOLDER):
    """Return the named set; without the rated sentences, the docstrings, whose name says so."""
    if name == "docstrings":
        return pick("docstrings of Python's library", by_topic(), seed)
    if not complete(folder):
        return pick("docstrings of Python's library, as the rated sentences are not here", by_topic(), seed)
    group = {"source": by_source, "sentiment": by_sentiment}[name]
    return pick(f"{name} of rated sentences", group(folder), seed)
