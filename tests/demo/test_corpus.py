"""Folders and questions as strangers hand them over."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.cli.demo import corpus
from agentbus.cli.demo.corpus import Library, Passage, load, terms
from agentbus.errors import ConfigError

PROSE = "The quick brown fox jumps over the lazy dog and thinks about foxes. " * 3


@pytest.fixture(scope="module")
def topics() -> Library:
    return Library.build(load(None))


def sources(folder: Path) -> list[str]:
    return list(dict.fromkeys(p.source for p in load(folder)))


def write(path: Path, data: str | bytes = PROSE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


# Questions


@pytest.mark.parametrize(
    "question, source",
    [
        ("How does the with statement decide whether to suppress an exception?", "with"),
        ("what does with do?", "with"),
        ("How do I slice a list?", "slicings"),
        ("What does global do?", "global"),
        ("How does `for` work", "for"),
    ],
)
def test_the_topic_asked_for_comes_first(topics: Library, question: str, source: str) -> None:
    assert topics.search(question)[0].source == source


@pytest.mark.parametrize(
    "question",
    [
        '"', '""', "'", "NEAR(", "NEAR(a b, 3)", "AND", "OR NOT", "a AND", "(", ")", "*", "a*", "^a",
        "source:", "nosuch:x",
        "{a b}: c", "-", "a - b", "+", "\0", "a\0b", "🙂", "🙂 list", "e\u0301", "²", "\ud800",
        "a" * 10_000, "list " * 2_000,
        '" ' * 5_000, "'; DROP TABLE passage; --", "_", "__", "日本語", "\u202e", " \t\n", "",
        " ".join(f"word{n}" for n in range(2_000)),
    ],
)  # fmt: skip
def test_no_text_is_a_syntax_error(topics: Library, question: str) -> None:
    topics.search(question)
    assert len(topics) > 500


SYNTAX = [*"\"'()*^:-+{}", "AND", "OR", "NOT", "NEAR", "list", "a", "_"]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80) | st.lists(st.sampled_from(SYNTAX)).map(" ".join))
def test_search_never_raises(question: str) -> None:
    for hit in LIBRARY.search(question):
        assert LIBRARY.read(hit.id).source == hit.source


LIBRARY = Library.build(
    [Passage("a#1", "a", "A list, a dict (and) NEAR it."), Passage("b#1", "b", "Or not: b and a list.")]
)


def test_a_question_without_words_finds_nothing(topics: Library) -> None:
    assert topics.search("") == topics.search("?! 🙂") == []


def test_a_question_of_stop_words_still_finds_something(topics: Library) -> None:
    assert topics.search("what is it?")


def test_joining_words_count_where_they_are_the_subject() -> None:
    assert terms("What is in a list?") == ["list"]
    assert terms("What does the with statement do?") == ["with", "statement"]
    assert terms("What does 'in' do to a list?") == ["in", "list"]
    assert terms("what does if do?") == ["if"]


@pytest.mark.parametrize("limit, most", [(3, 3), (0, 0), (-1, 0), (2**70, 100)])
def test_the_limit_holds(topics: Library, limit: int, most: int) -> None:
    assert len(topics.search("list object function", limit=limit)) <= most


def test_one_text_in_two_topics_is_found_once() -> None:
    twice = Library.build([Passage("a#1", "a", "A cell\nholds."), Passage("b#1", "b", "A  cell holds.")])
    assert [hit.id for hit in twice.search("cell")] == ["a#1"]


@pytest.mark.parametrize("unknown", ["", "with#999", "../../etc/passwd", "\ud800", "\0"])
def test_reading_what_is_not_there(topics: Library, unknown: str) -> None:
    with pytest.raises(KeyError):
        topics.read(unknown)


def test_answers_are_the_same_every_time(topics: Library) -> None:
    assert list(load(None)) == list(load(None))
    again = Library.build(load(None))
    assert again.search("closure cell of a function") == topics.search("closure cell of a function")


def test_an_index_on_disk_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Library.build([Passage("old#1", "old", "old text")], path):
        pass
    with Library.build([Passage("new#1", "new", "new text")], path) as library:
        assert len(library) == 1
        assert [hit.id for hit in library.search("text")] == ["new#1"]
    with pytest.raises(sqlite3.ProgrammingError):
        len(library)


# Passages


def test_passages_have_a_size_for_reading() -> None:
    sizes = sorted(len(p.text.split()) for p in load(None))
    assert sizes[-1] <= corpus.WORDS_MAX + corpus.WORDS_MIN + 20
    assert sizes[len(sizes) // 4] >= corpus.WORDS_MIN


def test_no_word_is_lost_or_added() -> None:
    from pydoc_data.topics import topics as texts

    joined: dict[str, str] = {}
    for p in load(None):
        joined[p.source] = joined.get(p.source, "") + "\n" + p.text
    assert {k: v.split() for k, v in joined.items()} == {k: v.split() for k, v in texts.items()}


def test_ids_are_distinct_and_say_where(tmp_path: Path) -> None:
    write(tmp_path / "docs/guide.md", "\n\n".join([PROSE] * 8))
    ids = [p.id for p in load(tmp_path)]
    assert ids[0] == "docs/guide.md#1" and len(ids) > 2 and len(set(ids)) == len(ids)


def test_a_fenced_block_stays_whole(tmp_path: Path) -> None:
    code = "```python\n" + "\n\n".join(f"def f{n}():\n    return {n}" for n in range(15)) + "\n```"
    write(tmp_path / "a.md", f"# Title\n\n{PROSE}\n\n{PROSE}\n\nLike this:\n\n{code}\n\n{PROSE}")
    assert any(code in p.text for p in load(tmp_path))


def test_a_fence_never_closed_does_not_swallow_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "```\n" + "\n\n".join([PROSE] * 40))
    assert all(len(p.text.split()) < 300 for p in load(tmp_path))


def test_python_splits_at_definitions(tmp_path: Path) -> None:
    functions = [f'def f{n}():\n    """{PROSE}"""\n\n    return {n}\n' for n in range(4)]
    write(tmp_path / "a.py", "\n\n".join(functions))
    assert [p.text.split("(")[0] for p in load(tmp_path)] == ["def f0", "def f1", "def f2", "def f3"]


@pytest.mark.parametrize("line", ["x" * 100_000, "word " * 20_000, "A sentence. " * 10_000, "\n\n" * 5_000 + "end"])
def test_a_file_of_one_endless_line_gives_bounded_passages(tmp_path: Path, line: str) -> None:
    write(tmp_path / "a.txt", line)
    passages = list(load(tmp_path))
    assert max(len(p.text) for p in passages) <= corpus.CHARS_MAX + 100  # and the space between
    assert sum(p.text.count("e") + p.text.count("x") for p in passages) == line.count("e") + line.count("x")


# Folders


def test_what_is_read_and_in_which_order(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "C.RST", "z/a.py", "z/b.md", "y/deep/er/c.txt", "skip.json", "noext"):
        write(tmp_path / name)
    for name in (".git/a.md", ".hidden/a.md", ".hidden.md", "node_modules/x/a.md", "__pycache__/a.py", "my/lib/a.py"):
        write(tmp_path / name)
    write(tmp_path / "my/pyvenv.cfg", "home = /usr")
    assert sources(tmp_path) == ["C.RST", "a.txt", "b.md", "y/deep/er/c.txt", "z/a.py", "z/b.md"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A corpus links to itself, to its parent, and to a secret outside."""
    write(tmp_path / "secret.txt", "the secret")
    folder = tmp_path / "corpus"
    write(folder / "a.md")
    (folder / "loop").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (folder / "stolen.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "dangling.txt").symlink_to(tmp_path / "nowhere")
    assert sources(folder) == ["a.md"]


def test_what_is_no_text_is_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a.md")
    write(tmp_path / "binary.txt", b"ELF\0\0\1")
    write(tmp_path / "latin1.txt", "Grüße aus Köln".encode("latin-1"))
    write(tmp_path / "utf16.txt", PROSE.encode("utf-16"))
    write(tmp_path / "bom.txt", b"\xef\xbb\xbf" + PROSE.encode())
    write(tmp_path / "blank.txt", " \n\n\t\n")
    write(tmp_path / "huge.txt", b"word " * (corpus.FILE_MAX // 5 + 1))
    (tmp_path / "folder.md").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")  # reading it would wait for ever
    assert sources(tmp_path) == ["a.md", "bom.txt"]
    assert not any(p.text.startswith("\ufeff") for p in load(tmp_path))


def test_files_and_folders_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.md")
    write(tmp_path / "locked.md")
    write(tmp_path / "closed/b.md")
    opens, scans = os.open, os.scandir  # root may read everything, so modes would prove nothing

    def refuse_open(path: str, *rest: int) -> int:
        if str(path).endswith("locked.md"):
            raise PermissionError(13, "Permission denied")
        return opens(path, *rest)

    def refuse_scan(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scans(path)

    monkeypatch.setattr(os, "open", refuse_open)
    monkeypatch.setattr(os, "scandir", refuse_scan)
    assert sources(tmp_path) == ["a.md"]


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    try:
        write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.md")))
    except OSError:
        pytest.skip("this file system allows only UTF-8 names")
    library = Library.build(load(tmp_path))
    (hit,) = library.search("fox", limit=1)
    assert library.read(hit.id).source == "b\\udcff.md"


def test_a_folder_without_text_says_so(tmp_path: Path) -> None:
    write(tmp_path / "data.json")
    with pytest.raises(ConfigError) as caught:
        Library.build(load(tmp_path))
    assert caught.value.code == "config.corpus_empty"
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("name", ["missing", "file.md", "nul\0"])
def test_no_folder_at_all_fails_at_once(tmp_path: Path, name: str) -> None:
    write(tmp_path / "file.md")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / name)
    assert caught.value.code == "config.corpus_missing"
