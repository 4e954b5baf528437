"""What is printed is text: nothing a stranger wrote moves the cursor, clears the screen or turns lines round."""

from __future__ import annotations

import pytest

from agentbus.cli.output import complain, printable, say
from agentbus.errors import Denied

WORDS = {
    "\x1b[2J\x1b]0;title\x07": "\ufffd[2J\ufffd]0;title\ufffd",
    "a\rb": "a\ufffdb",
    "a\u202eb\u2066c": "a\ufffdb\ufffdc",
    "\x9b31m": "\ufffd31m",
    "two\nlines\tand a tab": "two\nlines\tand a tab",
    "café · 文書 · ≤ ∈ → 🙂": "café · 文書 · ≤ ∈ → 🙂",
}


@pytest.mark.parametrize(("text", "shown"), WORDS.items(), ids=range(len(WORDS)))
def test_a_strangers_words_move_no_cursor(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(text) == shown
    say({}, text, as_json=False)
    complain(Denied("denied.scope", text))
    out, err = capsys.readouterr()
    assert out == f"{shown}\n"
    assert not any(ord(c) < 32 and c != "\n" for c in err)
    say({"text": text}, "", as_json=True)
    assert not any(ord(c) < 32 and c != "\n" for c in capsys.readouterr().out)
