"""The librarian's shelves: any folder of text as passages, and a full-text index over them.

Rule 1: the folder is not trusted. What is no plain, small, readable UTF-8 file is skipped; a link is never followed.
Rule 2: the question is not trusted. Only its words reach SQLite, each one quoted, so no text is a syntax error.
Rule 3: a passage is verbatim: joining a file's passages gives its paragraphs back, so that a citation can be checked.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from agentbus.errors import ConfigError

SUFFIXES = frozenset({".txt", ".md", ".rst", ".py"})
SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "env"})  # and hidden folders, and any with a pyvenv.cfg
FILE_MAX = 2 * 1024 * 1024  # bytes; larger texts are data or generated
WORDS_MIN, WORDS_GOOD, WORDS_MAX = 60, 110, 160  # per passage: enough to judge it alone, little enough to read
CHARS_MAX = 4_000  # per passage: bounds a minified line, which has few words
TERMS_MAX = 48  # per query; bm25 gains nothing from more, and SQLite bounds the depth of an expression
HITS_MAX = 100

CODES = {
    "config.corpus_missing": "The corpus is no folder that can be read.",
    "config.corpus_empty": "The corpus holds no text that can be searched.",
}


@dataclass(frozen=True, slots=True)
class Passage:
    """A few paragraphs of one text; ``id`` is what an answer cites, as in ``with#2`` or ``docs/guide.md#14``."""

    id: str
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that fits a question; a higher ``score`` fits better, and compares only within one search."""

    id: str  # of the passage
    source: str
    score: float
    snippet: str


def load(folder: Path | None) -> Iterator[Passage]:
    """The passages of every text below ``folder``, in a fixed order; of Python's own help topics for None.

    Raises:
        ConfigError: ``config.corpus_missing`` at once; ``config.corpus_empty`` at the end, where nothing was found.
    """
    if folder is None:
        return _passages_of(_topics(), "pydoc_data.topics")
    try:
        os.scandir(folder).close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise ConfigError("config.corpus_missing", f"cannot read the corpus {str(folder)!r}: {reason}") from error
    return _passages_of(_files(folder), str(folder))


class Library:
    """Full-text search over passages. Any thread may use it; calls take turns."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._turn = threading.Lock()

    @classmethod
    def build(cls, passages: Iterable[Passage], path: Path | str = ":memory:") -> Library:
        """Index ``passages`` afresh; an index already at ``path`` is replaced. Their ids are distinct."""
        db = sqlite3.connect(path, check_same_thread=False)
        try:
            db.executescript(_SCHEMA)
            rows = ((p.id, p.source, p.text) for p in passages)
            db.executemany("INSERT INTO passage(id, source, text) VALUES (?, ?, ?)", rows)
            db.execute("INSERT INTO shelf(shelf) VALUES ('rebuild')")
            db.commit()
        except BaseException:
            db.close()
            raise
        return cls(db)

    def search(self, question: str, limit: int = 8) -> list[Hit]:
        """The passages that fit best, best first; none for a question without words. Never fails on its text."""
        limit = min(limit, HITS_MAX)
        query = _match(question)
        if not query or limit < 1:
            return []
        with self._turn:
            rows = self._db.execute(_SEARCH, (query, limit * 4)).fetchall()
        hits: dict[str, Hit] = {}  # by text: one text often stands in several topics
        for id_, source, text, score, snippet in rows:
            hits.setdefault(_body(text), Hit(id_, source, -score, " ".join(snippet.split())))
        return list(hits.values())[:limit]

    def read(self, passage_id: str) -> Passage:
        """The passage of this id.

        Raises:
            KeyError: There is none.
        """
        try:
            with self._turn:
                row = self._db.execute("SELECT id, source, text FROM passage WHERE id = ?", (passage_id,)).fetchone()
        except UnicodeEncodeError:  # a lone surrogate: no id of ours has one
            row = None
        if row is None:
            raise KeyError(passage_id)
        return Passage(*row)

    def __len__(self) -> int:
        with self._turn:
            return int(self._db.execute("SELECT count(*) FROM passage").fetchone()[0])

    def close(self) -> None:
        with self._turn:
            self._db.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
DROP TABLE IF EXISTS shelf;
DROP TABLE IF EXISTS passage;
CREATE TABLE passage(row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, source TEXT NOT NULL, text TEXT NOT NULL);
CREATE VIRTUAL TABLE shelf USING fts5(
    source, text, content='passage', content_rowid='row', tokenize='porter unicode61');
"""

# The inner query ranks; only the winners pay for their text and snippet. Ties fall to the earlier passage.
_SEARCH = """
SELECT passage.id, passage.source, passage.text, bm25(shelf, 4.0, 1.0) AS score, snippet(shelf, 1, '', '', ' … ', 24)
FROM shelf JOIN passage ON passage.row = shelf.rowid
WHERE shelf MATCH ? ORDER BY score, shelf.rowid LIMIT ?
"""


# Words

_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r"[\"“'‘`]+(\w+)[\"”'’`]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that ask, and say nothing of what is asked about.
_ASKING = _words(
    """a about actually an are be been can could did do does done explain get give happen happens how i it its just
    know let me mean means much my please shall should show so tell that the them there these they thing things
    this those to use used using want was we were what when where which who whom whose why will work works would
    you your s t re ve am don doesn describe exactly way"""
)
# Words that join; in a text on programming they may be the very subject ("what does with do?").
_JOINING = _words(
    """after all also and any as at because before between but by each else for from has have if in inside into is
    no not of off on only onto or other out over own than then through under until up upon vs while with within
    without"""
)
_SUBJECT = _words("statement statements keyword keywords clause clauses expression operator loop loops block")


def terms(question: str) -> list[str]:
    """The words of a question that say what it is about, lower-case, in order, once each; few at most.

    A joining word counts where it is quoted or named as syntax ("the with statement"), or where nothing else is left.
    """
    words = [w.lower() for w in _WORD.findall(question[:20_000]) if len(w) <= 64]
    quoted = {w.lower() for w in _QUOTED.findall(question[:20_000])}
    named = {w for w, after in zip(words, words[1:], strict=False) if after in _SUBJECT} & _JOINING
    strong = [w for w in words if w in quoted or w in named or (w not in _ASKING and w not in _JOINING)]
    chosen = strong or [w for w in words if w in _JOINING and w != "is"] or words
    return list(dict.fromkeys(chosen))[:TERMS_MAX]


def _match(question: str) -> str:
    """An FTS5 expression: any term; better a term in the source's name; better two that stand side by side."""
    found = terms(question)
    kept = set(found)
    words = [w.lower() for w in _WORD.findall(question[:20_000])]
    pairs = dict.fromkeys(pair for pair in zip(words, words[1:], strict=False) if kept.issuperset(pair))
    clauses = [f'"{term}"' for term in found]
    clauses += [f'source : "{term}"' for term in found]
    clauses += [f'"{one} {two}"' for one, two in list(pairs)[:TERMS_MAX]]
    return " OR ".join(clauses)


# Folders


def _passages_of(texts: Iterable[tuple[str, str]], where: str) -> Iterator[Passage]:
    empty = True
    for source, text in texts:
        for number, part in enumerate(_split(text, python=source.endswith(".py")), start=1):
            empty = False
            yield Passage(f"{source}#{number}", source, part)
    if empty:
        kinds = " ".join(sorted(SUFFIXES))
        raise ConfigError("config.corpus_empty", f"no readable text in {where!r}; wanted UTF-8 files of {kinds}")


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics  # half a megabyte: only for who asks for it

    yield from sorted(topics.items())


def _files(root: Path) -> Iterator[tuple[str, str]]:
    """(Path below the root, text) of every file worth reading, files before folders, each in order of name."""
    todo = [("", os.fspath(root))]
    while todo:
        below, folder = todo.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted((e for e in listing if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError:
            continue
        if below and any(e.name == "pyvenv.cfg" for e in entries):
            continue
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES and (text := _text(entry)):  # noqa: PTH122
                yield _printable(below + entry.name), text
        for entry in reversed(entries):
            if entry.name not in SKIPPED and entry.is_dir(follow_symlinks=False):
                todo.append((f"{below}{entry.name}/", entry.path))


def _text(entry: os.DirEntry[str]) -> str | None:
    """What a plain, small UTF-8 file says; None for every other."""
    try:
        if not entry.is_file(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_size > FILE_MAX:
            return None
        # The file may have become a link or a pipe since: neither is followed nor waited for.
        fd = os.open(entry.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            data = file.read(FILE_MAX + 1)
        if len(data) > FILE_MAX or b"\0" in data:
            return None
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None


def _printable(path: str) -> str:
    """A file's name may be any bytes; a source is always text."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


# Passages

_UNDERLINE = re.compile(r"^([=*\-~^#\"'+.`_])\1{2,}\s*$")
_PY_TOP = re.compile(r"(?:async def|def|class|@\w)\b")


def _split(text: str, *, python: bool) -> Iterator[str]:
    """Passages of about 60 to 160 words on the borders of paragraphs; a heading or definition begins one."""
    held: list[str] = []
    size = 0
    for block, starts in _blocks(text, python=python):
        for piece in _pieces(block):
            words = len(piece.split())
            full = size >= WORDS_GOOD or (size >= WORDS_MIN and size + words > WORDS_MAX)
            over = size + words > WORDS_MAX + WORDS_MIN or sum(map(len, held)) + len(piece) > CHARS_MAX
            if held and (full or over or (starts and size >= WORDS_MIN // 2)):
                yield "\n\n".join(held)
                held, size = [], 0
            held.append(piece)
            size += words
    if held:
        yield "\n\n".join(held)


def _blocks(text: str, *, python: bool) -> Iterator[tuple[str, bool]]:
    """(Block, whether it begins a section): paragraphs, fenced code whole, other code with what leads to it."""
    block: list[str] = []
    fence = ""
    words = 0
    for paragraph in _paragraphs(text):
        first = paragraph[0]
        code_follows = bool(block) and first[:2] in ("  ", "\t") and block[-1].rstrip().endswith(":")
        size = sum(len(line.split()) for line in paragraph)
        if block and (fence or (code_follows and words + size <= WORDS_MAX)):
            block += ["", *paragraph]
            words += size
        else:
            if block:
                yield "\n".join(block), _starts_section(block, python=python)
            block, words = list(paragraph), size
        if not python:
            for line in paragraph:
                mark = line.lstrip()[:3]
                if mark in ("```", "~~~") and (not fence or (mark == fence and not line.strip().strip(mark[0]))):
                    underline = mark == "~~~" and bool(_UNDERLINE.match(line)) and not fence
                    fence = "" if fence or underline else mark
        if words > WORDS_MAX:  # a fence that is never closed must not swallow the file
            fence = ""
    if block:
        yield "\n".join(block), _starts_section(block, python=python)


def _paragraphs(text: str) -> Iterator[list[str]]:
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            yield lines
            lines = []
    if lines:
        yield lines


def _starts_section(block: list[str], *, python: bool) -> bool:
    if python:
        return bool(_PY_TOP.match(block[0]))
    if block[0].startswith("#"):
        return True
    return any(_UNDERLINE.match(line) for line in block[:2])


def _pieces(block: str) -> Iterator[str]:
    """A block that is too long for one passage, cut after a line, else after a sentence, else anywhere."""
    if len(block) <= CHARS_MAX and len(block.split()) <= WORDS_MAX + WORDS_MIN:
        yield block
        return
    lines = block.split("\n")
    glue = "\n"
    if len(lines) == 1:
        lines, glue = re.split(r"(?<=[.!?]) +", block), " "
    if len(lines) == 1:
        lines, glue = block.split(" "), " "
    held: list[str] = []
    words = chars = 0
    for line in lines:
        count = len(line.split())
        if held and (words + count > WORDS_MAX or chars + len(line) > CHARS_MAX):
            yield glue.join(held)
            held, words, chars = [], 0, 0
        if len(line) > CHARS_MAX or count > WORDS_MAX + WORDS_MIN:
            yield from _pieces(line) if line != block else _slices(line)
            continue
        held.append(line)
        words, chars = words + count, chars + len(line)
    if "".join(held).strip():
        yield glue.join(held)


def _slices(line: str) -> Iterator[str]:
    for start in range(0, len(line), CHARS_MAX):
        yield line[start : start + CHARS_MAX]


def _body(text: str) -> str:
    return " ".join(text.split())
