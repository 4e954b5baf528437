"""Writes what the documentation takes from the code: ``python docs/generate.py``.

``docs/reference/*.md`` whole, and in ``docs/index.md`` and ``docs/spec/*.md`` what stands between
``<!-- generated: NAME -->`` and ``<!-- end -->``. The examples of the specifications come from ``tests/vectors``.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final

import click

import agentbus
import agentbus.audit
import agentbus.replay
import agentbus.testing
from agentbus import errors
from agentbus.cli.main import COMMANDS, cli
from agentbus.crypto.signing import Purpose
from agentbus.delegation.grant import decode_links
from agentbus.protocol.exchange import DONE, TRANSITIONS
from agentbus.wire.codec import unpack_array
from agentbus.wire.frame import decode_frame
from agentbus.wire.limits import LIMITS
from agentbus.wire.sync import encode_sync

DOCS: Final = Path(__file__).resolve().parent
SOURCE: Final = Path(inspect.getfile(agentbus)).resolve().parent
VECTORS: Final = DOCS.parent / "tests" / "vectors"
NOTE: Final = "<!-- Written by docs/generate.py: change the code, not this page. -->\n\n"


# ── errors.md ────────────────────────────────────────────────────────────────────────────────────────────────────────

_BY_PREFIX: Final = {
    "malformed": "Malformed", "reject": "Rejected", "denied": "Denied", "directory": "DirectoryRefused",
    "unavailable": "Unavailable", "backpressure": "Backpressure", "cancelled": "Cancelled", "config": "ConfigError",
    "usage": "ProgrammingError", "key": "InvalidKey", "note": "BadSignature", "log": "LogError",
    "stream": "StreamBroken", "deadline": "DeadlineExceeded", "handler": "HandlerFailed",
    "evidence": "NotVerified",
}  # fmt: skip


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        yield ".".join(p for p in parts if p != "__init__"), ast.parse(path.read_text("utf-8"))


def code_tables() -> dict[str, dict[str, str]]:
    """Every ``CODES`` table by module, read without importing."""
    found: dict[str, dict[str, str]] = {}
    for name, tree in _modules():
        for node in tree.body:
            target = node.target if isinstance(node, ast.AnnAssign) else None
            if isinstance(node, ast.Assign):
                target = node.targets[0]
            named = isinstance(target, ast.Name) and target.id == "CODES"
            if named and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                found[name] = ast.literal_eval(node.value)
    return found


def _classes() -> dict[str, set[str]]:
    """Which classes each code is raised as: ``Class("code", …)`` anywhere in the source."""
    known = set(errors.subclasses())
    found: dict[str, set[str]] = {}
    for _, tree in _modules():
        for node in ast.walk(tree):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known
            if called and node.args and isinstance(node.args[0], ast.Constant):  # type: ignore[attr-defined]
                found.setdefault(node.args[0].value, set()).add(node.func.id)  # type: ignore[attr-defined]
    return found


def errors_page() -> str:
    """Every code, its sentence and its class, by module."""
    raised, classes = _classes(), errors.subclasses()
    lines = [NOTE + "# Error codes\n"]
    lines.append(
        "Programs compare `error.code`. The class says who has to act; the tree of classes is in `agentbus.errors`.\n"
        "*Retry* says whether the same call can succeed later without anybody changing anything, unless the error\n"
        "itself says otherwise in `error.retryable`. An application's own errors are subclasses of `Problem`.\n"
    )
    tree = textwrap.dedent((errors.__doc__ or "").split("::")[1].split("Each check")[0]).strip("\n")
    lines.append(f"```\n{tree}\n```\n")
    for module, table in sorted(code_tables().items()):
        lines.append(f"## `{module}`\n\n| code | class | retry | meaning |\n|---|---|---|---|")
        for code, sentence in table.items():
            names = sorted(raised.get(code, ())) or [_BY_PREFIX.get(code.partition(".")[0], "AgentBusError")]
            retry = "yes" if any(n in classes and classes[n].default_retryable for n in names) else ""
            shown = ", ".join(f"`{n}`" for n in names)
            lines.append(f"| `{code}` | {shown} | {retry} | {_cell(sentence)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


# ── api.md ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def api_page() -> str:
    """The public names, with signatures and docstrings."""
    lines = [NOTE + "# Python interface\n", "What follows is imported from `agentbus`.\n"]
    for name in agentbus.__all__:
        lines += _public(name, getattr(agentbus, name))
    for package in (agentbus.audit, agentbus.replay, agentbus.testing):
        said, _, code = (package.__doc__ or "").replace("``", "`").partition("\n\n::\n\n")
        lines += [f"# {package.__name__}\n", said + "\n", f"```python\n{textwrap.dedent(code).strip()}\n```\n"]
        lines += [f"What follows is imported from `{package.__name__}`.\n"]
        for name in sorted(set(package.__all__) - set(agentbus.__all__)):
            lines += _public(name, getattr(package, name))
    return "\n".join(lines).rstrip() + "\n"


def _public(name: str, of: Any) -> list[str]:
    lines = [f"## {name}\n"]
    if inspect.isclass(of):
        return [*lines, *_class(name, of)]
    if not inspect.isfunction(of):
        return [*lines, *_constant(name, of)]
    return [*lines, f"```python\n{_signature(name, of)}\n```\n", _doc(of)]


def _constant(name: str, of: Any) -> list[str]:
    if isinstance(of, dict):
        return ["| name | meaning |\n|---|---|", *(f"| `{key}` | {_cell(text)} |" for key, text in of.items()), ""]
    if isinstance(of, tuple):
        return [", ".join(f"`{one}`" for one in of) + "\n"]
    return [f"```python\n{name} = {_text(str(of))}\n```\n"]


_GIVEN: Final = {
    "Bus",
    "Context",
    "LocalBus",
    "Opening",
    "Session",
    "Stream",
    "Evidence",
    "Attacker",
    "Captured",
}  # never made by their class
_INNER: Final = {
    "Stream.answered",
    "Stream.failed",
    "Identity.current",
    "Identity.propose",
    "Attacker.node",
    "Attacker.voice",
    "Attacker.link",
    "Attacker.sign_link",
    "Attacker.seal",
    "Attacker.instance_of",
    "Attacker.connection",
    "ManualClock.watch",
    "ManualClock.drive",
}  # for the runtime and its own tests alone


def _class(name: str, of: type) -> list[str]:
    lines = [f"*{_bases(of)}*\n"] if _bases(of) else []
    if issubclass(of, errors.AgentBusError):
        return [*lines, _doc(of)]
    own_init = "__init__" in vars(of) and (vars(of)["__init__"].__doc__ or not _is_model(of)) and name not in _GIVEN
    if own_init and not _is_model(of):
        lines.append(f"```python\n{_signature(name, vars(of)['__init__'], drop_self=True, returns=False)}\n```\n")
    lines.append(_doc(of))
    for member, value in vars(of).items():
        if member.startswith("_") or (_is_model(of) and member.startswith("model_")) or member == "message_type":
            continue
        if f"{name}.{member}" in _INNER:
            continue
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(value, property):
            hint = (value.fget.__annotations__ if value.fget else {}).get("return", "Any")
            lines += [f"### {name}.{member}\n", f"```python\n{member}: {_text(hint)}\n```\n", _doc(value)]
        elif inspect.isfunction(plain):
            shown = _signature(member, plain, drop_self=not isinstance(value, staticmethod))
            prefix = "async def " if inspect.iscoroutinefunction(plain) else "def "
            mark = "@classmethod\n" if isinstance(value, classmethod) else ""
            lines += [f"### {name}.{member}\n", f"```python\n{mark}{prefix}{shown}\n```\n", _doc(plain)]
    return lines


def _is_model(of: type) -> bool:
    return hasattr(of, "model_fields")


def _bases(of: type) -> str:
    return ", ".join(b.__name__ for b in of.__bases__ if b is not object and "Generic" not in b.__name__)


def _signature(name: str, of: Any, *, drop_self: bool = False, returns: bool = True) -> str:
    made = inspect.signature(of)
    parts: list[str] = []
    star = False
    for at, one in enumerate(made.parameters.values()):
        if drop_self and at == 0:
            continue
        if one.kind is one.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        text = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "") + one.name
        star = star or one.kind is one.VAR_POSITIONAL
        if one.annotation is not one.empty:
            text += f": {_text(one.annotation)}"
        if one.default is not one.empty:
            shown = (
                f"{type(one.default).__name__}.{one.default.name}"
                if isinstance(one.default, Enum)
                else repr(one.default)
            )
            text += (" = " if one.annotation is not one.empty else "=") + shown
        parts.append(text)
    end = f" -> {_text(made.return_annotation)}" if returns and made.return_annotation is not made.empty else ""
    line = f"{name}({', '.join(parts)}){end}"
    return line if len(line) <= 100 else f"{name}(\n    " + ",\n    ".join(parts) + f",\n){end}"


def _text(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    return getattr(annotation, "__name__", str(annotation))


def _doc(of: Any) -> str:
    """A docstring as Markdown: sections become lists."""
    text = inspect.cleandoc(of.__doc__ or "")
    text = re.sub(r":(?:func|class|meth|mod|exc):`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    out: list[str] = []
    listing = False
    for line in text.splitlines():
        found = re.fullmatch(r"(Args|Attributes|Returns|Yields|Raises):", line)
        if found:
            out += [f"\n**{found[1]}**\n"]
            listing = found[1] in ("Args", "Attributes")
        elif listing and (item := re.fullmatch(r"    (\w+): (.*)", line)):
            out.append(f"- `{item[1]}`: {item[2]}")
        else:
            if line and not line.startswith(" "):
                listing = False
            out.append(f"  {line.strip()}" if listing and line.strip() else line.strip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip() + "\n"


# ── cli.md ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def cli_page() -> str:
    """Every command with its arguments and options."""
    lines = [NOTE + "# Command line\n"]
    lines.append(
        "Exit status 0: yes. 1: the answer is no. 2: wrong use. An error is one line on standard error:\n"
        "`agentbus: <what and what to do> [<code>]`.\n"
    )
    context = click.Context(cli, info_name="agentbus")
    for name in sorted(COMMANDS):
        command = cli.get_command(context, name)
        if command is not None:
            lines += _command(command, f"agentbus {name}", context)
    return "\n".join(lines).rstrip() + "\n"


def _command(command: click.Command, name: str, parent: click.Context) -> list[str]:
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    lines = [f"## `{name}`\n" if name.count(" ") == 1 else f"### `{name}`\n"]
    lines.append(f"{_paragraph(command.help)}\n")
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            child = command.get_command(context, sub)
            if child is not None:
                lines += _command(child, f"{name} {sub}", context)
        return lines
    usage = " ".join(command.collect_usage_pieces(context))
    lines.append(f"```\n{name} {usage}\n```\n")
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        lines.append("| option | meaning |\n|---|---|")
        lines += [f"| {_option(p)} | {_cell(_paragraph(p.help))}{_default(p)} |" for p in options]
        lines.append("")
    return lines


def _option(of: click.Option) -> str:
    value = "" if of.is_flag else f" {of.metavar or of.type.name.upper()}"
    more = " …" if of.multiple else ""
    return f"`{', '.join(of.opts)}{value}`{more}{' (required)' if of.required else ''}"


def _default(of: click.Option) -> str:
    return f" Default: `{of.default}`." if of.show_default and of.default is not None else ""


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").replace("\b", "").split())


# ── exchanges.md ─────────────────────────────────────────────────────────────────────────────────────────────────────


def exchanges_page() -> str:
    """The state tables as diagrams."""
    lines = [NOTE + "# Exchanges\n"]
    lines.append(
        "An exchange is named by the digest of the message that opened it. Both sides keep its state. A move that is\n"
        "not in the table is not made: a message that would make it is verified, recorded and then set aside.\n"
        "`expire`, `cancel` and `lose` are moves without an answer: the deadline passed, the caller cancelled, the\n"
        "connection was lost. A `final receipt` is the receipt of the level that the send asked for.\n"
    )
    for kind, table in TRANSITIONS.items():
        lines.append(f"## {kind.name.lower()}\n\n```mermaid\nstateDiagram-v2\n    [*] --> waiting")
        lines += [f"    {a} --> {b}: {move}" for (a, move), b in sorted(table.items())]
        ends = sorted({b for b in table.values() if b in DONE})
        lines += [*(f"    {end} --> [*]" for end in ends), "```\n", "| from | move | to |\n|---|---|---|"]
        lines += [f"| {a} | {move} | {b} |" for (a, move), b in sorted(table.items())]
        lines.append("")
    return "\n".join(lines)


# ── examples in the specifications ───────────────────────────────────────────────────────────────────────────────────


def _vector(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


def _hex(data: bytes, width: int = 32) -> str:
    text = data.hex()
    return "\n".join(text[at : at + 2 * width] for at in range(0, len(text), 2 * width))


def _block(text: str) -> str:
    return f"```\n{text}\n```"


def _rows(names: list[str], values: list[Any]) -> str:
    lines = []
    for at, (name, value) in enumerate(zip(names, values, strict=True)):
        shown = value.hex() if isinstance(value, bytes) else json.dumps(value, default=lambda b: b.hex())
        lines.append(f"{at:>2} {name:<20} {shown or '(empty)'}")
    return "\n".join(lines)


_HEADER: Final = [
    "version", "kind", "message_id", "conversation", "sender", "sender_instance", "sender_key", "seq",
    "recipient", "recipient_instance", "peer_seq", "topic", "stream_index", "in_reply_to", "cause", "action",
    "issued_at", "deadline", "body_type", "body_length", "body_commitment", "chain_digest", "handover_digest",
    "directory_size", "revocation_seq", "checkpoint_digest", "traceparent", "flags", "extensions",
]  # fmt: skip
_GRANT: Final = [
    "version", "issuer", "issuer_epoch", "issuer_key", "issued_at", "audience", "audience_epoch", "pinned_key",
    "subject", "root", "n", "prev", "not_before", "expires", "scopes", "targets", "depth", "id", "purpose",
    "conversation", "root_kind", "evidence",
]  # fmt: skip


def _first_frame() -> Any:
    return decode_frame(bytes.fromhex(_vector("envelope")["cases"][0]["frame"]), LIMITS)


def pae_types() -> str:
    uses = {
        Purpose.BATCH: "envelopes", Purpose.REPLAY_BATCH: "envelopes of a replay run", Purpose.GRANT: "links",
        Purpose.INSTANCE: "instance statements, by the identity key",
        Purpose.INSTANCE_POSSESSION: "instance statements, by the instance key",
        Purpose.KEY_EVENT: "entries of the directory's log", Purpose.REVOCATION: "revocations in that log",
        Purpose.POP: "enrolment: proof that a new identity key is held",
        Purpose.ROTATION: "rotations, by the old and the new identity key",
        Purpose.RETIREMENT: "receipts of a retirement, by the directory",
    }  # fmt: skip
    return "\n".join(["| type | signs |", "|---|---|", *(f"| `{p.value}` | {uses[p]} |" for p in Purpose)])


def pae_example() -> str:
    one = _vector("keys")["keys"][0]
    rows = ((name, one[name]) for name in ("seed", "public", "thumbprint", "body", "pae", "signature"))
    return _block("\n".join(f"{name:<11}{value}" for name, value in rows))


def frame_example() -> str:
    frame = bytes.fromhex(_vector("envelope")["cases"][0]["frame"])
    names = ("header", "proof", "chain", "handover", "note", "salt", "body")
    lengths = [frame[at : at + 4] for at in range(1, 29, 4)]
    lines = [f"{frame[:1].hex():<10} envelope"]
    lines += [
        f"{length.hex():<10} {name}: {int.from_bytes(length, 'big')}"
        for name, length in zip(names, lengths, strict=True)
    ]
    return _block("\n".join([*lines, f"{'':<10} the frame: {len(frame)} bytes"]))


def batch_example() -> str:
    expect = _vector("envelope")["cases"][0]["expect"]
    data = bytes.fromhex(expect["to_sign"])
    cuts = (("version", 0, 1), ("key id", 1, 33), ("instance id", 33, 49), ("n", 49, 51), ("root", 51, 83))
    lines = [f"{name:<12}{data[a:b].hex()}" for name, a, b in cuts]
    return _block("\n".join([*lines, f"{'signature':<12}{_first_frame().proof[:64].hex()}"]))


def header_example() -> str:
    header = _first_frame().header
    return _block(
        _rows(_HEADER, unpack_array(header)) + "\n\nbytes\n" + _hex(header) + "\n\nmessage digest\n"
        + _vector("envelope")["cases"][0]["expect"]["digest"]
    )  # fmt: skip


def body_example() -> str:
    envelope = _first_frame()
    commitment = unpack_array(envelope.header)[20].hex()
    return _block(f"salt        {envelope.salt.hex()}\nbody        {envelope.body.decode()}\ncommitment  {commitment}")


def grant_example() -> str:
    one = _vector("chain")["cases"][0]
    link = decode_links(bytes.fromhex(one["chain"]))[0]
    return _block(
        _rows(_GRANT, unpack_array(link.body)) + "\n\nbody\n" + _hex(link.body) + "\n\nsignature\n"
        + _hex(link.signature) + f"\n\nlink digest\n{one['link_digests'][0]}\n\ndigest of the chain of three links\n"
        + one["digest"]
    )  # fmt: skip


def _statement(data: str, names: list[str]) -> str:
    row = unpack_array(bytes.fromhex(data))
    parts = ["body", "key id", "signature", "possession"]
    lines = [f"{name}\n{_hex(value)}" for name, value in zip(parts, row[1:], strict=False)]
    return _block(_rows(names, unpack_array(row[1])) + f"\n\ntag {row[0]}\n" + "\n".join(lines))


def event_example() -> str:
    names = ["version", "seq", "instant", "domain", "kind", "subject", "payload"]
    return _statement(_vector("directory")["entries"][0], names)


def instance_example() -> str:
    names = [
        "version", "principal", "epoch", "instance_id", "key", "identity_key", "node", "log_key", "curve_key",
        "endpoints", "purposes", "not_before", "not_after",
    ]  # fmt: skip
    return _statement(_vector("directory")["statements"][0], names)


def head_example() -> str:
    return _block(_vector("directory")["heads"][0]["note"].rstrip("\n"))


def sync_example() -> str:
    return _block(_hex(encode_sync("poll", 1, 0, b"")))


def log_example() -> str:
    vector = _vector("log")
    return _block(vector["checkpoint"] + "\n" + vector["proofs"][1].rstrip("\n"))


def decisions() -> str:
    """The architecture decision records, by number."""
    lines = []
    for path in sorted((DOCS / "adr").glob("[0-9]*.md")):
        title = path.read_text("utf-8").partition("\n")[0].partition(": ")[2]
        lines.append(f"  - [{title}](adr/{path.name})")
    return "\n".join(lines)


EXAMPLES: Final[dict[str, Callable[[], str]]] = {
    "decisions": decisions,
    "pae-types": pae_types,
    "pae-example": pae_example,
    "frame-example": frame_example,
    "batch-example": batch_example,
    "header-example": header_example,
    "body-example": body_example,
    "grant-example": grant_example,
    "event-example": event_example,
    "instance-example": instance_example,
    "head-example": head_example,
    "sync-example": sync_example,
    "log-example": log_example,
}
_MARK: Final = re.compile(r"<!-- generated: ([a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """A specification with its generated parts as they should be."""
    return _MARK.sub(lambda found: f"<!-- generated: {found[1]} -->\n{EXAMPLES[found[1]]()}\n<!-- end -->", text)


def pages() -> dict[Path, str]:
    """Every generated file and its text."""
    made = {
        DOCS / "reference" / "errors.md": errors_page(),
        DOCS / "reference" / "api.md": api_page(),
        DOCS / "reference" / "cli.md": cli_page(),
        DOCS / "reference" / "exchanges.md": exchanges_page(),
    }
    for path in [DOCS / "index.md", *sorted((DOCS / "spec").glob("*.md"))]:
        made[path] = filled(path.read_text("utf-8"))
    return made


def main() -> None:
    """Write every generated file."""
    for path, text in pages().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
