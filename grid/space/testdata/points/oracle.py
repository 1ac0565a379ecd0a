"""Computes the points of parameter files and --set arguments, as the manual (docs/parameters.md) says, for TestPointsOfOracle.

Reads a JSON list of {"name": file, "text": content} and {"set": argument}; writes for each the list of its points, each a list
of [key, value]. A value is "n:" and the source text of a number, "t:" and text, "true", "false", "l:" and the arguments of a
list, "d:" and an exact number, or "f:" and the nearest 64-bit number.
"""
import csv, decimal, fractions, io, itertools, json, re, sys

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$")


def plain(text):
    if text in ("true", "True", "TRUE"):
        return "true"
    if text in ("false", "False", "FALSE"):
        return "false"
    return ("n:" if NUMBER.match(text) else "t:") + text


class Tagged(tuple):
    """An interval that was written as !!python/tuple [start, end, step]."""


class YAML:
    """Just what parameter files are made of: block maps and lists, flow lists and maps, quotes, tags, anchors, comments."""

    def __init__(self, text):
        self.s, self.i, self.anchors = text, 0, {}

    def blank(self, lines=True):
        while self.i < len(self.s):
            c = self.s[self.i]
            if c == " " or c == "\n" and lines:
                self.i += 1
            elif c == "#" and (self.i == 0 or self.s[self.i - 1] in " \n"):
                while self.i < len(self.s) and self.s[self.i] != "\n":
                    self.i += 1
            else:
                return

    def column(self):
        return self.i - (self.s.rfind("\n", 0, self.i) + 1)

    def document(self):
        self.blank()
        return self.block_map(0) if self.i < len(self.s) else {}

    def block_map(self, indent):
        out = {}
        while True:
            self.blank()
            if self.i >= len(self.s) or self.column() != indent:
                return out
            key = self.scalar(":")
            assert self.s[self.i] == ":", (key, self.s[self.i:self.i + 20])
            self.i += 1
            out[key[2:] if key[1] == ":" else key] = self.value(indent)

    def value(self, indent):
        self.blank(lines=False)
        if self.i < len(self.s) and self.s[self.i] == "&":
            name = self.word()
            out = self.anchors[name[1:]] = self.value(indent)
            return out
        if self.i < len(self.s) and self.s[self.i] == "\n":
            self.blank()
            if self.s.startswith("- ", self.i):
                return self.block_list(self.column())
            return self.block_map(self.column())
        return self.node("#")

    def block_list(self, indent):
        out = []
        while True:
            self.blank()
            if self.i >= len(self.s) or self.column() != indent or not self.s.startswith("- ", self.i):
                return out
            self.i += 2
            self.blank(lines=False)
            at = self.column()
            if re.match(r"[\w.]+: ", self.s[self.i:]):
                out.append(self.block_map(at))
            elif self.s.startswith("- ", self.i):
                out.append(self.block_list(at))
            else:
                out.append(self.node("#"))

    def word(self):
        m = re.compile(r"\S+").match(self.s, self.i)
        self.i = m.end()
        return m.group()

    def node(self, ends):
        """A flow node; a plain scalar in it ends at one of ends."""
        self.blank()
        c = self.s[self.i]
        if c == "*":
            m = re.compile(r"\*(\w+)").match(self.s, self.i)
            self.i = m.end()
            return self.anchors[m.group(1)]
        if c == "!":
            tag = self.word()
            inner = self.node(ends)
            if tag == "!!python/tuple":
                return Tagged(inner)
            if tag == "!!str":
                return "t:" + re.sub("^[tn]:", "", inner)
            return inner
        if c == "[":
            self.i += 1
            out = []
            while True:
                self.blank()
                if self.s[self.i] == "]":
                    self.i += 1
                    return out
                out.append(self.node(",]"))
                self.blank()
                if self.s[self.i] == ",":
                    self.i += 1
        if c == "{":
            self.i += 1
            out = {}
            while True:
                self.blank()
                if self.s[self.i] == "}":
                    self.i += 1
                    return out
                key = self.scalar(":")
                self.i += 1
                out[key[2:]] = self.node(",}")
                self.blank()
                if self.s[self.i] == ",":
                    self.i += 1
        return self.scalar(ends)

    def scalar(self, ends):
        c = self.s[self.i]
        if c == "'":
            m = re.compile(r"'((?:[^']|'')*)'").match(self.s, self.i)
            self.i = m.end()
            return "t:" + m.group(1).replace("''", "'")
        if c == '"':
            m = re.compile(r'"(?:[^"\\]|\\.)*"').match(self.s, self.i)
            self.i = m.end()
            return "t:" + json.loads(m.group())
        start = self.i
        while self.i < len(self.s):
            c = self.s[self.i]
            after = self.s[self.i + 1:self.i + 2]
            if c == "\n" or c == "#" and self.s[self.i - 1] == " ":
                break
            if c == ":" and ends == ":" and after in (" ", "\n", ""):
                break
            if ends not in ":#" and c in ends:
                break
            self.i += 1
        return plain(self.s[start:self.i].strip())


def bare(value):
    return value[2:] if value[1:2] == ":" else value


def decimals(numbers):
    start, end, *step = [decimal.Decimal(bare(n)) for n in numbers]
    step = step[0] if step else decimal.Decimal(1)
    out, i = [], 0
    while (start + i * step - end) * (1 if step > 0 else -1) < 0:
        out.append("d:" + str(start + i * step))
        i += 1
    return out


def spaced(numbers, power):
    a, b, n = [fractions.Fraction(bare(x)) for x in numbers]
    out = []
    for i in range(int(n)):
        x = a + (b - a) * i / (n - 1) if n > 1 else a
        if power:
            with decimal.localcontext() as c:
                c.prec = 60
                x = decimal.Decimal(10) ** (decimal.Decimal(x.numerator) / decimal.Decimal(x.denominator))
        out.append("f:" + repr(float(x)))
    return out


def values(v):
    if isinstance(v, Tagged):
        return decimals(v)
    if isinstance(v, dict):
        if "linspace" in v or "logspace" in v:
            name = next(iter(v))
            return spaced(v[name], name == "logspace")
        return decimals([v[k] for k in ("start", "end", "step") if k in v])
    if isinstance(v, list):
        return ["l:" + json.dumps([bare(x) for x in item]) if isinstance(item, list) else item for item in v]
    return [v]


FORMULA = {"start", "end", "step", "linspace", "logspace"}


def axes(document):
    """Each axis is a list of alternatives; an alternative is a list of (key, value) pairs."""
    out = []
    for key, v in document.items():
        zips = v if isinstance(v, list) else [v]
        if key == "zip" and all(isinstance(z, dict) and not set(z) & FORMULA for z in zips):
            for z in zips:
                columns = {k: values(c) for k, c in z.items()}
                out.append([list(zip(columns, row)) for row in zip(*columns.values(), strict=True)])
        else:
            out.append([[(key, x)] for x in values(v)])
    return out


def product(all_axes):
    return [[pair for part in combination for pair in part] for combination in itertools.product(*all_axes)]


def cell(text):
    return plain(text.strip()) if text.strip() else "false"


def from_json(v):
    if v is None or v is False:
        return "false"
    if v is True:
        return "true"
    if isinstance(v, list):
        return "l:" + json.dumps([str(x) for x in v])
    return ("t:" if type(v) is str else "n:") + v


class Source(str):
    """The source text of a number in JSON."""


def points(name, text):
    if name.endswith((".csv", ".tsv")):
        keys, *rows = [r for r in csv.reader(io.StringIO(text), delimiter="\t" if name.endswith("tsv") else ",", skipinitialspace=True) if r]
        return [list(zip([k.strip() for k in keys], map(cell, row))) for row in rows]
    if name.endswith(".jsonl"):
        objects = [json.loads(l, parse_int=Source, parse_float=Source) for l in text.splitlines() if l.strip()]
        keys = list(dict.fromkeys(k for o in objects for k in o))
        return [[(k, from_json(o.get(k))) for k in keys] for o in objects]
    return product(axes(YAML(text).document()))


def from_set(argument):
    key, rest = argument.split("=", 1)
    inner = rest[1:-1]
    flow = rest.startswith("!!") or rest.startswith("{") and re.match(r"\{\s*[\"']?\w+[\"']?:\s", rest)
    if rest.startswith("[") and closes(rest) == len(rest) - 1 and ("," in inner or NUMBER.match(inner.strip("[] "))):
        flow = True
    if flow:
        return product(axes({key: YAML(rest).node("\n")}))
    words = split(rest)
    numbers = words[0][0].split(":")
    if len(words) == 1 and not words[0][1] and len(numbers) > 1 and all(NUMBER.match(n.strip()) for n in numbers):
        return product([[[(key, x)] for x in decimals(["n:" + n.strip() for n in numbers])]])
    return product([[[(key, "t:" + w if quoted else plain(w))] for w, quoted in words]])


def closes(text):
    depth = 0
    for i, c in enumerate(text):
        depth += (c in "[({") - (c in "])}")
        if depth == 0:
            return i


def split(rest):
    """The values of a --set, each with whether it was quoted or escaped."""
    words, text, quoted, i = [], "", False, 0
    while i <= len(rest):
        c = rest[i:i + 1]
        if c in (",", ""):
            words.append((text if quoted else text.strip(), quoted))
            text, quoted, i = "", False, i + 1
            while rest[i:i + 1] == " ":
                i += 1
        elif c in "'\"" and text == "":
            end = i + 1
            while rest[end] != c:
                if rest[end] == "\\" and rest[end + 1] in c + "\\":
                    end += 1
                text += rest[end]
                end += 1
            quoted, i = True, end + 1
        elif c == "\\" and rest[i + 1:i + 2] in (",", ":", "\\", "'", '"'):
            text, quoted, i = text + rest[i + 1], True, i + 2
        elif c in "[({":
            n = closes(rest[i:])
            text, i = text + rest[i:i + n + 1], i + n + 1
        else:
            text, i = text + c, i + 1
    return words


out = [from_set(c["set"]) if "set" in c else points(c["name"], c["text"]) for c in json.load(sys.stdin)]
json.dump(out, sys.stdout)
