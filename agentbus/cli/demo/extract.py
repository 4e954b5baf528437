"""The summarizer's craft: an answer made of sentences that stand in the passages, word for word.

Rule 1: every sentence is a substring of ``plain(passage.text)`` for the passage it cites, so anybody can check it.
Rule 2: the same question over the same passages gives the same answer: no clock, no chance, no order of a set.
Rule 3: headings, tables, grammar and code are never quoted; better fewer sentences than a wrong one.

A sentence is worth the rare words of the question that it holds, plus a share of those its surroundings hold; what it
repeats of a sentence already chosen is taken off again (maximal marginal relevance, Carbonell and Goldstein 1998).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentbus.cli.demo.corpus import Passage, terms


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of an answer; ``citation`` is the id of the passage in which it stands."""

    text: str
    citation: str


def summarise(question: str, passages: Sequence[Passage], *, sentences: int = 5) -> Iterator[Sentence]:
    """The sentences of ``passages``, best passage first, that answer ``question`` best: at most ``sentences``.

    They come passage by passage, the one with the best sentence first, and within it as they stand there. None come
    where the passages hold next to nothing of the question: no answer is better than one to another question.
    """
    asked = [stem(term) for term in terms(question)]
    candidates = _candidates(asked, passages)
    weights = _weights(asked, passages)
    if not _covered(candidates, weights):
        return
    scores = _scores(candidates, weights, defines=bool(_DEFINES.match(question)), passages=len(passages))
    chosen = _choose(candidates, scores, sentences)
    best: dict[int, float] = {}
    for i in chosen:
        best[candidates[i].rank] = max(best.get(candidates[i].rank, 0.0), scores[i])
    for i in sorted(chosen, key=lambda i: (-best[candidates[i].rank], candidates[i].rank, candidates[i].place)):
        yield Sentence(candidates[i].text, passages[candidates[i].rank].id)


def plain(text: str) -> str:
    """A text on one line, without the marks that begin its lines (comment, quotation): what sentences are cut from."""
    return " ".join(" ".join(_MARGIN.sub("", line) for line in text.splitlines()).split())


_MARGIN = re.compile(r"^\s*(?:#:|#+(?=\s|$)|>+(?=\s|$))\s*")


def split_sentences(paragraph: str) -> list[str]:
    """The sentences of one paragraph of prose on one line."""
    found: list[str] = []
    start = 0
    for end in _END.finditer(paragraph):
        before = paragraph[start : end.start(1)]
        if _ABBREVIATED.search(before) or before.count("(") > before.count(")") + end.group(1).count(")"):
            continue
        found.append(paragraph[start : end.end(1)].strip())
        start = end.end()
    found.append(paragraph[start:].strip())
    return [sentence for sentence in found if sentence]


# A sentence ends before what can begin one. "e.g. this" and "3.11 is" hold no end.
_END = re.compile(r"([.!?](?:[\"”’')\]]|\*{1,2}|`{1,2})*)\s+(?=[(\[:]*[A-Z0-9_]|[(\[]*[\"“‘'*`]+\w)")
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\"“])(?:e\.g|i\.e|etc|vs|cf|al|ca|approx|incl|resp|viz|no|fig|sec|ch|eq|vol|pp?|mr|mrs|ms|dr|prof|st|inc"
    r"|[A-Za-z])$",
    re.IGNORECASE,
)


def stem(word: str) -> str:
    """What "slices", "slicing" and "slice" have in common; crude, as both sides of a comparison go through it."""
    word = word.lower().strip("_")
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word if word.endswith("ss") and suffix == "s" else word[: -len(suffix)]
    return word


_SUFFIXES = tuple(
    re.findall(r"\w+", "ations ation ings ing ions ion ies ied ors ers or er ed es ly s e y")
)  # longest first


# Candidates


@dataclass(frozen=True, slots=True)
class _Candidate:
    text: str
    rank: int  # of its passage among the passages
    place: int  # among the passage's sentences
    stems: tuple[str, ...]
    around: frozenset[str]  # words asked for that its passage holds anywhere, in code or a heading too
    named: frozenset[str]  # words asked for that its source is named for


def _candidates(asked: Sequence[str], passages: Sequence[Passage]) -> list[_Candidate]:
    found: list[_Candidate] = []
    seen: set[str] = set()
    for rank, passage in enumerate(passages):
        around = frozenset(_stems(passage.text)).intersection(asked)
        named = frozenset(_stems(passage.source)).intersection(asked)
        whole = plain(passage.text)
        for place, text in enumerate(_prose_sentences(passage)):
            key = text.casefold()
            if key not in seen and text in whole:
                seen.add(key)
                found.append(_Candidate(text, rank, place, tuple(_stems(text)), around, named))
    return found


_WORD = re.compile(r"[^\W_]+")


def _stems(text: str) -> list[str]:
    return [stem(word) for word in _WORD.findall(text)]


def _prose_sentences(passage: Passage) -> Iterator[str]:
    for paragraph in _paragraphs(passage):
        line = plain(paragraph)
        if not _is_prose(paragraph, line):
            continue
        for sentence in split_sentences(_unmarked(line)):
            sentence = _unmarked(sentence)
            if _is_sentence(sentence):
                yield sentence


def _paragraphs(passage: Passage) -> Iterator[str]:
    """What blank lines, list marks, fences, docstring quotes and the border of comment and code keep apart."""
    python = passage.source.endswith(".py")
    text = passage.text.replace('"""', "\n\n").replace("'''", "\n\n") if python else passage.text
    lines: list[str] = []
    fenced = was_comment = False
    for line in text.splitlines():
        fence = not python and bool(re.match(r"\s*(```|~~~\w|~~~$)", line))
        comment = python and line.lstrip().startswith("#")
        apart = fence or fenced or not line.strip() or comment != was_comment or _ITEM.match(line)
        if (apart or (lines and _UNDERLINE.match(line))) and lines:
            if not _UNDERLINE.match(line):  # else they are a heading
                yield "\n".join(lines)
            lines = []
        if fence:
            fenced = not fenced
        elif not fenced and line.strip() and not _UNDERLINE.match(line):
            lines.append(line)
        was_comment = comment
    if lines and not fenced:
        yield "\n".join(lines)


_ITEM = re.compile(r"\s*(?:[*+•-]|\d{1,2}[.)]|\(\w\))\s+\S|\s*:\w+[^:]*:\s|\s*\.\. ")
_UNDERLINE = re.compile(r"^\s*([=*\-~^#\"'+.`_])\1{2,}\s*$")

# What a paragraph or a sentence may begin with and does not say: list marks, directives, labels, footnote numbers.
_MARKS = re.compile(
    r"^(?:[*+•-]\s+|\d{1,2}[.)]\s+|\(\w\)\s+|\.\.\s+[\w-]+::\s*|\.\.\s+\[[#\w]+\]\s+|\[[#\w]{1,3}\]\s+"
    r"|:(?:param|type|raises?|returns?|rtype|arg|ivar|cvar)[^:]*:\s+|(?:Note|Warning|Tip|Important|Hint):\s+)"
)


def _unmarked(text: str) -> str:
    while mark := _MARKS.match(text):
        text = text[mark.end() :]
    return text


_COMMON = frozenset(
    _WORD.findall(
        """a an and are as at be but by can for from has have if in is it its may not of on or that the
        this to when which will with you your was were must should used"""
    )
)
_CODE = re.compile(
    r"::=|>>>|^\s*\.\.\. |\s[-=]>\s|[;{}]\s*$|^\s*(?:def|class|async def|from|import|return|raise|elif|except|assert)\s"
    r"[^.?!]*[:)\w]$|^\s*@\w|^\s*[\w.\[\]]+ = \S|^\s*(?:[$%] )\w|\w\(\w*\)$",
    re.MULTILINE,
)


def _is_prose(paragraph: str, line: str) -> bool:
    first = paragraph.lstrip()[:1]
    if first in "|+" or paragraph.count("|") > 3 or re.match(r"#{1,6}\s+\S[^.]*$", paragraph.strip()):
        return False
    return not _CODE.search(paragraph.strip()) and _reads(line)


def _reads(text: str) -> bool:
    """Whether a text is made of words, some of which only prose needs."""
    words = text.split()
    plain_words = sum(1 for word in words if word.strip(".,;:!?()\"'“”‘’*`_—-").replace("-", "").isalpha())
    common = sum(1 for word in words if word.lower() in _COMMON)
    return len(words) >= 4 and plain_words >= 0.55 * len(words) and common >= max(1, len(words) // 15)


def _is_sentence(text: str) -> bool:
    words = len(text.split())
    if _LISTS.match(text):
        return False
    ended = re.search(r"[.!?][\"”’')\]*`]*$", text) is not None
    begins = re.match(r"[\"“‘'(\[*`:_]*[A-Z0-9_]|[\"“‘'`]+\w", text) is not None
    balanced = text.count("(") == text.count(")")
    return ended and begins and balanced and 4 <= words <= 80 and _reads(text)


_LISTS = re.compile(r"(?:Args|Arguments|Parameters|Attributes|Raises|Returns|Yields|Examples?|Usage):")


# Worth


def _weights(asked: Sequence[str], passages: Sequence[Passage]) -> dict[str, float]:
    """How much each word asked for tells, by the share of passages without it."""
    held = [frozenset(_stems(p.text)) | frozenset(_stems(p.source)) for p in passages]
    weights = {}
    for term in dict.fromkeys(asked):
        count = sum(term in words for words in held)
        weights[term] = math.log(1.5 + (len(held) - count + 0.5) / (count + 0.5))
    return weights


_COVERED = 0.2  # of the question's weight; "how do I make tea" finds many a passage with "make"


def _covered(candidates: Sequence[_Candidate], weights: dict[str, float]) -> bool:
    best = max((sum(weights[t] for t in sorted(c.around | c.named)) for c in candidates), default=0.0)
    return best > 0 and best >= _COVERED * sum(weights.values())


_DEFINES = re.compile(r"\s*(?:what(?:'s|’s| is| are| does| do)|define|explain|who is|describe)\b", re.IGNORECASE)
_SAYS = frozenset(_WORD.findall("is are means mean defines define refers refer describes specifies selects allows has"))
_LEANS = re.compile(
    r"(?:This|These|That|Those|It|They|He|She|However|Otherwise|But|And|So|Also|Thus|Then|Therefore|Hence|Here|Such"
    r"|For example|For instance|In this|In particular|In that|In addition|The same|The following|See|Note that"
    r"|Changed in|New in|Deprecated|Added in)\b"
)
_POINTS = re.compile(r"(?:See|Changed in|New in|Added in|Deprecated|PEP \d|\*\*PEP|Copyright|Licensed|TODO|FIXME)\b")


def _scores(
    candidates: Sequence[_Candidate], weights: dict[str, float], *, defines: bool, passages: int
) -> list[float]:
    held = frozenset[str]().union(*(c.around | c.named for c in candidates))
    weights = {term: weight for term, weight in weights.items() if term in held}
    total = sum(weights.values())
    own = [_own(c, weights, total) for c in candidates]  # not empty: _covered saw to it
    scores = []
    for i, c in enumerate(candidates):
        beside = max((own[j] for j in (i - 1, i + 1) if 0 <= j < len(own) and candidates[j].rank == c.rank), default=0)
        around = sum(weights[t] for t in weights if t in c.around) / total
        named = sum(weights[t] for t in weights if t in c.named) / total
        score = own[i] + 0.3 * beside + 0.15 * around + 0.25 * named
        if defines and _is_definition(c, weights):
            score += 0.3
        score *= 1.0 + 0.1 / (1 + c.place)
        score *= 1.0 - 0.2 * c.rank / max(passages, 1)
        scores.append(score * _shape(c))
    return scores


def _own(c: _Candidate, weights: dict[str, float], total: float) -> float:
    """The share of the question it holds; words of the question that stand together here count once more."""
    held = sum(weight for term, weight in weights.items() if term in c.stems)
    order = list(weights)
    pairs = set(zip(order, order[1:], strict=False)) & set(zip(c.stems, c.stems[1:], strict=False))
    return (held + 0.4 * sum(min(weights[a], weights[b]) for a, b in sorted(pairs))) / total


def _is_definition(c: _Candidate, weights: dict[str, float]) -> bool:
    """Whether it soon says something of a word asked for, as in 'The "global" statement is a declaration'."""
    words = [word.lower() for word in _WORD.findall(c.text)][:9]
    subject = next((i for i, word in enumerate(words[:4]) if stem(word) in weights), None)
    return subject is not None and any(word in _SAYS for word in words[subject + 1 : subject + 5])


def _shape(c: _Candidate) -> float:
    """Less for what is very short or long, or only points elsewhere."""
    words = len(c.text.split())
    shape = 1.0
    if words < 7:
        shape *= 0.7
    elif words > 40:
        shape *= 0.8
    if _POINTS.match(c.text):
        shape *= 0.4
    return shape


_ENOUGH = 0.55  # of the best score: below it a sentence dilutes the answer
_REPEATS = 0.5  # how much of a sentence's worth its likeness to another can cost
_ALONE = 0.6  # "This means" without the sentence before it
_SAME = 0.75  # likeness from which on two sentences say the same


def _choose(candidates: Sequence[_Candidate], scores: Sequence[float], wanted: int) -> list[int]:
    best = max(scores, default=0.0)
    left = [i for i in range(len(candidates)) if scores[i] > 0 and scores[i] >= _ENOUGH * best]
    bags = {i: frozenset(candidates[i].stems) for i in left}
    chosen: list[int] = []
    likeness = dict.fromkeys(left, 0.0)
    leaning = {i for i in left if _LEANS.match(candidates[i].text)}

    def worth(i: int) -> tuple[float, int]:
        alone = i in leaning and not (i - 1 in chosen and candidates[i - 1].rank == candidates[i].rank)
        return scores[i] * (1 - _REPEATS * likeness[i]) * (_ALONE if alone else 1.0), -i

    while left and len(chosen) < wanted:
        top = max(left, key=worth)
        chosen.append(top)
        for i in left:
            likeness[i] = max(likeness[i], len(bags[i] & bags[top]) / max(len(bags[i] | bags[top]), 1))
        left = [i for i in left if i != top and likeness[i] < _SAME]
    return chosen
