"""Every sentence of an answer can be found where it says it stands."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.cli.demo.corpus import Library, Passage, load
from agentbus.cli.demo.extract import Sentence, plain, split_sentences, stem, summarise

QUESTIONS = [
    "How does the with statement decide whether to suppress an exception?",
    "What is a closure cell?",
    "How do I slice a list?",
    "What does global do?",
    "How are default parameter values evaluated?",
    "What is a descriptor?",
    "Why is __hash__ set to None?",
    "Which operators bind most tightly?",
]


@pytest.fixture(scope="module")
def topics() -> Library:
    return Library.build(load(None))


def found(library: Library, question: str) -> list[Passage]:
    return [library.read(hit.id) for hit in library.search(question)]


@pytest.mark.parametrize("question", QUESTIONS)
def test_sentences_stand_in_the_passage_they_cite(topics: Library, question: str) -> None:
    passages = found(topics, question)
    answer = list(summarise(question, passages))
    assert 1 <= len(answer) <= 5
    texts = {p.id: plain(p.text) for p in passages}
    for sentence in answer:
        assert sentence.text in texts[sentence.citation]
        assert "::=" not in sentence.text and "***" not in sentence.text
    assert len({s.text for s in answer}) == len(answer)


@pytest.mark.parametrize(
    "question, wanted",
    [
        (QUESTIONS[0], "If the return value was true, the exception is suppressed"),
        (QUESTIONS[1], 'A cell object has the attribute "cell_contents".'),
        (QUESTIONS[2], "A slicing selects a range of items in a sequence object (e.g., a string, tuple or list)."),
        (QUESTIONS[3], 'The "global" statement is a declaration which holds for the entire current code block.'),
        (QUESTIONS[4], "Default parameter values are evaluated from left to right"),
        (QUESTIONS[6], 'will have its "__hash__()" implicitly set to "None".'),
    ],
)
def test_the_answer_holds_what_answers(topics: Library, question: str, wanted: str) -> None:
    assert wanted in " ".join(s.text for s in summarise(question, found(topics, question)))


@pytest.mark.parametrize("question", ["How do I make tea?", "", "?", "🙂"])
def test_no_answer_to_what_the_passages_do_not_hold(topics: Library, question: str) -> None:
    passages = found(topics, question) or found(topics, "list")
    assert list(summarise(question, passages)) == []


def test_nothing_comes_of_nothing() -> None:
    assert list(summarise("What is a list?", [])) == []
    assert list(summarise("What is a list?", [Passage("a#1", "a", "A list is a row of things.")], sentences=0)) == []


def test_the_same_answer_every_time(topics: Library) -> None:
    random.seed(1)
    passages = found(topics, QUESTIONS[0])
    first = list(summarise(QUESTIONS[0], passages))
    assert all(list(summarise(QUESTIONS[0], passages)) == first for _ in range(3))


def test_headings_tables_grammar_and_code_are_not_quoted() -> None:
    text = """The widget statement
********************

   widget_stmt ::= "widget" expression to be the one that is in the list.

A widget is *always* round.  For example:

   widget = make(widget)
   for w in widget: print("The widget is a thing in the list.")

| The widget | is in a table. |

```
The widget is in a fence, so it is code to be left alone.
```

>>> print("a widget is in the doctest")
"""
    assert list(summarise("What is a widget?", [Passage("w#1", "w", text)])) == [
        Sentence("A widget is *always* round.", "w#1")
    ]


def test_docstrings_and_comments_are_prose_and_their_code_is_not() -> None:
    text = '''def spin(widget):
    """Spin the widget until it is dizzy.

    Args:
        widget: The widget that is to be spun.
    """
    # A widget that is square
    # cannot be spun by anybody.
    return widget.spin(the=widget)
'''
    answer = [s.text for s in summarise("How do I spin a widget?", [Passage("w.py#1", "w.py", text)])]
    assert answer[0] == "Spin the widget until it is dizzy."
    assert "A widget that is square cannot be spun by anybody." in answer
    assert not any("return" in text or "Args" in text for text in answer)


def test_what_says_the_same_is_said_once() -> None:
    same = "A widget is a round thing that turns around its own axis."
    passages = [Passage(f"w#{n}", "w", f"{same} Number {n} of the widget list is here too.") for n in range(4)]
    passages.append(Passage("x#1", "x", same.replace("around", "about")))
    texts = [s.text for s in summarise("What is a widget?", passages)]
    assert sum(text.startswith("A widget is a round thing") for text in texts) == 1


@pytest.mark.parametrize(
    "text, parts",
    [
        ("One is here. Two is there.", 2),
        ("Use e.g. This or i.e. That, etc. and go on.", 1),
        ("See Fig. 3 and Python 3.11. It works!", 2),
        ('It ends "in a quote." Then another begins.', 2),
        ('Call "a.b()" first. "c.d" comes second.', 2),
        ("It holds (see below. And above.) one remark.", 1),
        ("Is it? Yes. No!", 3),
        ("", 0),
    ],
)
def test_where_sentences_end(text: str, parts: int) -> None:
    assert len(split_sentences(text)) == parts


@pytest.mark.parametrize(
    "words",
    ["slice slices slicing slicings sliced", "suppress suppresses suppressed", "closure closures", "copy copies"],
)
def test_forms_of_a_word_have_one_stem(words: str) -> None:
    assert len({stem(word) for word in words.split()}) == 1


PIECES = [
    "A list is here. ",
    "\n\n",
    "```\n",
    '"""',
    "* ",
    "| a |",
    "\n====\n",
    "::",
    ">>> x = 1\n",
    "(",
    "# A comment is. ",
]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=15).map("".join))
def test_no_passage_breaks_it_and_all_is_verbatim(question: str, text: str) -> None:
    for source in ("a.py", "a.md"):
        for sentence in summarise(
            question + " list", [Passage("a#1", source, text), Passage("b#1", source, text[::-1])]
        ):
            assert sentence.text in plain({"a#1": text, "b#1": text[::-1]}[sentence.citation])
