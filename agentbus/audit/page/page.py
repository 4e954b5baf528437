"""The page: what the auditor concludes first, then who asked whom, what happened when, and every conversation.

Rule 1: nothing is fetched and nothing runs: no script, no font, no picture from elsewhere, and a policy that says so.
Rule 2: everything that came out of a log is escaped. A body is somebody's text, and may be an attacker's.
Rule 3: what is too much to read is counted, never silently left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from typing import Any, Final

from agentbus.audit.message import Message
from agentbus.audit.page.drawings import clock, graph, sequence, span, timeline
from agentbus.audit.page.story import Conversation, Told, tell
from agentbus.audit.page.style import CSS
from agentbus.log.report import VERDICTS, Report
from agentbus.wire.ids import b64

CONVERSATIONS: Final = 200  # that are told one by one; a page of more would be opened by nobody
MESSAGES: Final = 200  # of one of them
BODY: Final = 4000  # characters

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_ANSWER: Final = {True: ("yes", "good"), False: ("no", "bad"), None: ("not judged", "none")}


def report_page(
    report: Report,
    messages: Sequence[Message],
    refusals: Sequence[dict[str, Any]],
    *,
    domain: str,
    logs: Sequence[str],
    root: str,
    made: int,
    bodies: bool = True,
) -> str:
    """One HTML page.

    Args:
        report: The verdicts.
        messages: All messages of all logs.
        refusals: Frames that nobody's signature vouches for.
        domain: The trust domain.
        logs: The logs' names.
        root: The pinned root key's thumbprint.
        made: When the page is made: an instant, microseconds.
        bodies: Whether to show bodies.
    """
    stories = tell(messages)
    problems = [(name, text) for name, verdict in report.items() for text in verdict.problems]
    body = [
        _head(report, stories, refusals, domain=domain, logs=logs, root=root, made=made),
        _verdicts(report),
        _problems(problems, stories, refusals),
        _section("Who asked whom", "Arrows are questions with their number; red ones were refused.", graph(stories)),
        _section("What happened when", "A dot is a message where its sender stands: large ones ask, small ones answer,"
                 " red ones were refused, hollow ones nobody's log says more about. Times are UTC.", timeline(stories)),
        _conversations(stories, bodies=bodies),
        f"<footer>Made by <code>agentbus log report</code> from {len(logs)} logs. The page only shows what"
        " <code>agentbus log verify</code> finds: to be sure, verify the logs yourself against the root key that you"
        " know from elsewhere.</footer>",
    ]  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>What happened in {escape(domain)}</title><style>{CSS}</style></head><body><main>"
        + "".join(body)
        + "</main></body></html>\n"
    )


def _head(
    report: Report, stories: Sequence[Conversation], refusals: Sequence[Any], *, domain: str, logs: Sequence[str],
    root: str, made: int,
) -> str:  # fmt: skip
    told = [one for story in stories for one in story.told]
    refused = sum(one.refused is not None for one in told)
    people = {name for story in stories for name in story.people}
    users = {story.user for story in stories if story.user}
    period = ""
    if told:
        first, last = min(one.instant for one in told), max(one.instant for one in told)
        period = f"{clock(first, date=True)} to {clock(last, date=True)} UTC ({span(last - first)})"
    word, style = ("All that could be judged is in order", "good") if report.ok else ("Something is wrong", "bad")
    numbers = [
        (len(stories), "conversations"), (len(told), "messages"), (refused, "refused"),
        (len(refusals), "unverifiable frames"), (len(people), "participants"), (len(users), "users acted for"),
        (report["REDACTED"].checked, "bodies erased"),
    ]  # fmt: skip
    cells = "".join(f"<div><b>{count}</b>{name}</div>" for count, name in numbers)
    return (
        f'<header><h1>What happened in <span class="domain">{escape(domain)}</span></h1>'
        f'<p class="big {style}">{word}</p><p>{period}</p><div class="numbers">{cells}</div>'
        f'<p class="small">Logs: {escape(", ".join(logs))} · root key <code>{escape(root)}</code> · made'
        f" {clock(made, date=True)} UTC</p></header>"
    )


def _verdicts(report: Report) -> str:
    rows = []
    for name, verdict in report.items():
        word, style = _ANSWER[verdict.ok]
        reason = f'<span class="small">{escape(verdict.reason)}</span>' if verdict.reason else ""
        rows.append(
            f'<tr><td><span class="badge {style}">{word}</span></td><th>{name}</th>'
            f"<td>{escape(VERDICTS[name])} {reason}</td><td class=number>{verdict.checked}</td></tr>"
        )
    head = "<tr><th></th><th>Verdict</th><th>What it says</th><th class=number>checked</th></tr>"
    return _section("Verdicts", "", f"<table>{head}{''.join(rows)}</table>")


def _problems(
    problems: Sequence[tuple[str, str]], stories: Sequence[Conversation], refusals: Sequence[dict[str, Any]]
) -> str:
    parts = []
    if problems:
        shown = "".join(f"<li><b>{name}</b> {escape(text)}</li>" for name, text in problems[:MESSAGES])
        more = f"<li>and {len(problems) - MESSAGES} more</li>" if len(problems) > MESSAGES else ""
        parts.append(f'<h3>What the verdicts rest on</h3><ul class="problems">{shown}{more}</ul>')
    refused = _refused(stories)
    if refused:
        rows = "".join(
            f"<tr><td class=number>{times}</td><td>{escape(sender)} → {escape(recipient)}</td><td>{escape(action)}</td>"
            f'<td><code class="bad">{escape(code)}</code></td><td>{clock(instant)}</td>'
            f'<td><a href="#c{conversation}">{"the first" if times > 1 else "conversation"}</a></td></tr>'
            for (sender, recipient, action, code), (times, instant, conversation) in list(refused.items())[:MESSAGES]
        )
        more = f"<p>and {len(refused) - MESSAGES} more</p>" if len(refused) > MESSAGES else ""
        parts.append(f"<h3>Messages that were refused</h3><table>{rows}</table>{more}")
    if refusals:
        counts: dict[str, int] = {}
        for row in refusals:
            counts[row["code"]] = counts.get(row["code"], 0) + 1
        rows = "".join(
            f"<tr><td class=number>{n}</td><td><code>{escape(c)}</code></td></tr>" for c, n in counts.items()
        )
        parts.append(f"<h3>Frames that nobody's signature vouches for</h3><table>{rows}</table>")
    if not parts:
        return _section("Problems", "None.", "")
    return _section("Problems", "", "".join(parts))


def _refused(stories: Sequence[Conversation]) -> dict[tuple[str, str, str, str], tuple[int, int, str]]:
    """Who was refused what and why: how often, when first, and in which conversation."""
    found: dict[tuple[str, str, str, str], tuple[int, int, str]] = {}
    for story in stories:
        for one in story.told:
            if one.refused:
                message = one.message
                what = (message.sender.short, message.recipient.short, message.action, one.refused)
                times, instant, conversation = found.get(what, (0, one.instant, story.id))
                found[what] = (times + 1, instant, conversation)
    return found


def _conversations(stories: Sequence[Conversation], *, bodies: bool) -> str:
    shown = stories[:CONVERSATIONS]
    left = len(stories) - len(shown)
    more = f"<p>{left} later conversations are not shown; <code>agentbus log show</code> has them.</p>" if left else ""
    longest = max(shown, key=lambda story: len(story.told), default=None)
    parts = [_conversation(story, shown=story is longest, bodies=bodies) for story in shown]
    return _section(
        "Conversations", "Everything that one question caused, in the order of time.", "".join(parts) + more
    )


def _conversation(story: Conversation, *, shown: bool, bodies: bool) -> str:
    question = story.told[0].message
    behalf = f" for <b>{escape(story.user)}</b>" if story.user else ""
    flag = f' <span class="badge bad">{story.refused} refused</span>' if story.refused else ""
    title = (
        f"<b>{escape(question.sender.short)} → {escape(question.recipient.short)}</b> {escape(question.action)}{behalf}"
        f' <span class="small">{clock(story.start, date=True)} · {span(story.end - story.start)} ·'
        f" {len(story.told)} messages</span>{flag}"
    )
    rows = "".join(_message(one, story.start, bodies=bodies) for one in story.told[:MESSAGES])
    left = len(story.told) - MESSAGES
    more = f"<p>and {left} more messages</p>" if left > 0 else ""
    return (
        f'<details class="story" id="c{story.id}"{" open" if shown else ""}><summary>{title}</summary>'
        f"{sequence(story)}<ol>{rows}</ol>{more}</details>"
    )


def _message(one: Told, start: int, *, bodies: bool) -> str:
    message = one.message
    state = {"ok": "accepted", "open": "not known to be received", "refused": f"refused: {one.refused}"}[one.state]
    path = " → ".join(who.short for who in message.path)
    scopes = ", ".join(message.authority.scopes) if message.authority else ""
    facts = [
        ("claims" if one.refused else "authority", f"{path}{f' with {scopes}' if scopes else ''}" or "unreadable"),
        ("digest", b64(message.digest)), ("logged by", ", ".join(dict.fromkeys(one.logs))),
    ]  # fmt: skip
    if one.sent is not None and one.received is not None:
        facts.append(("under way", f"{span(abs(one.received - one.sent))} by the two clocks"))
    listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return (
        f'<li class="{one.state}" style="margin-left:{24 * min(one.depth, 8)}px"><details><summary>'
        f'<span class="time">+{span(one.instant - start)}</span> <span class="kind">{message.kind}</span>'
        f" <b>{escape(message.sender.short)} → {escape(message.recipient.short)}</b> {escape(message.action)}"
        f' <span class="state {one.state}">{escape(state)}</span></summary><dl>{listed}</dl>'
        f"{_body(message) if bodies else ''}</details></li>"
    )


def _body(message: Message) -> str:
    if message.body is None:
        return f'<p class="small">{"its body was erased on purpose" if message.erased else "its body is absent"}</p>'
    if not message.body:
        return ""
    text = message.body.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    cut = f"\n… {len(text) - BODY} more characters" if len(text) > BODY else ""
    return f"<pre>{escape(text[:BODY] + cut)}</pre>"


def _section(title: str, what: str, content: str) -> str:
    about = f'<p class="small">{what}</p>' if what else ""
    return f"<section><h2>{title}</h2>{about}{content}</section>"
