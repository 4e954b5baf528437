"""Bodies that are erased on purpose: everything still verifies, with the exact count, and nothing of them is left."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner
from loglab import Lab
from pydantic import BaseModel

from agentbus import Agent, Context, Request
from agentbus.cli.main import cli
from agentbus.crypto.merkle import leaf_hash
from agentbus.errors import Denied, LogError
from agentbus.log import entry
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Redaction, Sent
from agentbus.log.redact import find_erasable, redact
from agentbus.runtime.redaction import Redact
from agentbus.testing import Network
from agentbus.testing.draw import NOON
from agentbus.wire.frame import decode_frame
from agentbus.wire.header import decode_header
from agentbus.wire.ids import b64
from agentbus.wire.limits import LIMITS


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_ten_percent_of_the_bodies_are_erased_and_the_log_verifies_with_that_count(lab: Lab, tmp_path: Path) -> None:
    log = lab.open(tmp_path)
    for name in ("erin", "carol"):
        log.put_blob(lab.statements[name])
    digests, secrets = [], []
    for at in range(25):
        body = b'{"secret": "number %d of these"}' % at
        frames = lab.request(body=body)
        lab.log(log, frames, "dave", sent=False)
        digests += [leaf_hash(decode_frame(frame, LIMITS).header) for frame in frames]
        secrets += [decode_frame(frame, LIMITS).salt for frame in frames]
    log.checkpoint()
    keys = (tmp_path / "box-keys").read_bytes()
    for digest in digests[::10]:
        assert redact(log, digest, authority="user/alice", reason="gdpr-17", now=NOON) == 1
        assert redact(log, digest, authority="user/alice", reason="gdpr-17", now=NOON) == 0
    assert redact(log, bytes(32), authority="user/alice", reason="gdpr-17", now=NOON) == 0
    log.close()
    report = lab.verify(tmp_path)
    assert report.ok and report["REDACTED"].checked == 5 and report["MISSING"].checked == 50
    lost = [keys[32 * at : 32 * at + 32] for at in range(0, 50, 10)]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (*lost, *secrets, b"number"):
        assert not any(secret in data for data in files)
    again = lab.open(tmp_path)
    assert again.checkpoint()
    again.close()


def test_results_of_steps_go_with_their_message(lab: Lab, tmp_path: Path) -> None:
    log = lab.open(tmp_path)
    frames = lab.request()
    lab.log(log, frames, "dave", sent=False)
    digests = [leaf_hash(decode_frame(frame, LIMITS).header) for frame in frames]
    names = [log.put_box(b"result %d" % at) for at in range(2)]
    for digest, name in zip(digests, names, strict=True):
        step = entry.step(
            log.size, NOON, digest=digest, step=entry.StepKind.CALL, name="x", given=None, number=1, began=NOON,
            outcome=entry.Outcome.RESULT, result=name,
        )  # fmt: skip
        log.append([step])
    assert (
        len(find_erasable(iter(log), digests[0]).boxes)
        == len(find_erasable(log.about(digests[0]), digests[0]).boxes)
        == 2
    )
    assert redact(log, digests[0], authority="local", reason="x", now=NOON) == 2
    assert log.box(names[0]) is None and log.box(names[1]) == b"result 1"
    log.close()


@pytest.mark.parametrize("reason", ["", "two words", "x" * 65, "ünïcode", "a\nb"])
def test_a_reason_is_a_code_because_it_cannot_be_erased(reason: str, lab: Lab, tmp_path: Path) -> None:
    log = lab.open(tmp_path)
    with pytest.raises(LogError) as caught:
        redact(log, bytes(32), authority="local", reason=reason, now=NOON)
    assert caught.value.code == "log.reason"
    log.close()


def test_the_command_erases_in_a_log_whose_node_does_not_run(lab: Lab, tmp_path: Path) -> None:
    folder, run = tmp_path / "carol", CliRunner()
    log = lab.open(folder)
    lab.write(log)
    log.close()
    (folder / "log.key").write_bytes(lab.key.seed)
    command = ["log", "redact", str(folder), "1", "--reason", "asked", "--here", "--json"]
    done = run.invoke(cli, command)
    assert done.exit_code == 0 and json.loads(done.output)["redacted"][0]["erased"] == 1
    assert json.loads(run.invoke(cli, command).output)["redacted"][0]["erased"] == 0
    report = lab.verify(folder)
    assert report.ok and report["REDACTED"].checked == 1
    log = lab.open(folder)
    done = run.invoke(cli, ["log", "redact", str(folder), "2", "--reason", "no code", "--here"])
    assert done.exit_code == 1 and isinstance(done.exception, LogError)
    log.close()


# ── the other party ──────────────────────────────────────────────────────────────────────────────────────────────────


class Answer(BaseModel):
    text: str


class Ask(Request[Answer]):
    question: str


carol, dave = Agent("carol", erasure="parties"), Agent("dave", erasure="parties")
keeper = Agent("keeper")  # erases for its owner alone


@carol.handler
async def ask(request: Ask, ctx: Context) -> Answer:
    return Answer(text=request.question.upper())


@keeper.handler
async def keep(request: Ask, ctx: Context) -> Answer:
    return Answer(text=request.question)


@dave.handler
async def relay(request: Ask, ctx: Context) -> Answer:
    return await ctx.bus.request("carol", request)


def first_question(net: Network) -> bytes:
    """The digest of the first Ask that was sent."""
    sent = [e.header for e in map(decode_entry, net._node.recorder.log) if isinstance(e, Sent)]
    return next(leaf_hash(header) for header in sent if decode_header(header, LIMITS).action == "Ask")


async def test_a_party_asks_the_other_to_erase_and_the_answer_is_on_the_record(net: Network) -> None:
    async with net.serve(carol):
        alice = net.user("alice", scopes=[])
        await alice.request("carol", Ask(question="a secret"))
        log = net._node.recorder.log
        digest = first_question(net)
        answer = await alice.request("carol", Redact(message=b64(digest), reason="gdpr-17"))
        assert answer.erased == 1  # as it was received: in memory both write one log, and her copy is hers
        assert (await alice.request("carol", Redact(message=b64(digest), reason="gdpr-17"))).erased == 0
        redactions = [e for e in map(decode_entry, log) if isinstance(e, Redaction)]
        assert [(e.authority.rsplit("/", 2)[1:], e.reason) for e in redactions] == [(["user", "alice"], "gdpr-17")]
        report = net.evidence("carol").verify()
        assert report.ok and report["REDACTED"].checked == 1


async def test_who_is_no_party_of_a_message_erases_nothing(net: Network) -> None:
    """Mallory, and dave who only heard of it, ask carol to erase what alice said to her."""
    async with net.serve(carol, dave):
        alice = net.user("alice", scopes=[])
        await alice.request("carol", Ask(question="a secret"))
        wanted = Redact(message=b64(first_question(net)), reason="x")
        bob = net.user("bob", scopes=[])
        for speaker, to in ((bob, "carol"), (alice, "dave"), (net.user("mallet", scopes=[]), "carol")):
            with pytest.raises(Denied) as caught:
                await speaker.request(to, wanted)
            assert caught.value.code == "denied.redaction"
        assert net.evidence("carol").verify()["REDACTED"].checked == 0


async def test_nobody_has_the_evidence_of_its_own_order_erased(net: Network) -> None:
    """Alice orders, and asks the keeper to forget it; the keeper's owner may, and the commitment stays for ever."""
    async with net.serve(keeper):
        alice, owner = net.user("alice", scopes=[]), net.user("owner", scopes=[])
        await alice.request("keeper", Ask(question="sell everything"))
        wanted = Redact(message=b64(first_question(net)), reason="x")
        for speaker in (alice, owner):
            with pytest.raises(Denied) as caught:
                await speaker.request("keeper", wanted)
        assert caught.value.code == "denied.redaction"  # she owns nothing yet
        with pytest.raises(Denied) as caught:
            await alice.request("keeper", wanted)
        assert caught.value.code == "denied.redaction_owner"
        assert net.evidence("keeper").verify()["REDACTED"].checked == 0
        net.directory_amend("keeper", owner=net._node.name_id("user/owner"))
        assert (await owner.request("keeper", wanted)).erased == 1
        report = net.evidence("keeper").verify()
        assert report.ok and report["REDACTED"].checked == 1


async def test_an_agent_of_the_same_node_erases_its_own_copy_and_not_its_neighbours(net: Network) -> None:
    """Mallory's clerk runs beside the keeper, orders, and is told by its owner to forget it: one log has both."""
    clerk = Agent("clerk", erasure="parties")

    @clerk.handler
    async def order(request: Ask, ctx: Context) -> Answer:
        return await ctx.bus.request("keeper", request)

    async with net.serve(keeper, clerk):
        mallory = net.user("mallory-the-owner", scopes=[])
        net.directory_amend("clerk", owner=net._node.name_id("user/mallory-the-owner"))
        await mallory.request("clerk", Ask(question="sell everything"))
        log = net._node.recorder.log
        sent = [e.header for e in map(decode_entry, log) if isinstance(e, Sent)]
        orders = [h for h in sent if decode_header(h, LIMITS).action == "Ask"]
        digest = next(leaf_hash(h) for h in orders if decode_header(h, LIMITS).recipient.endswith("/keeper"))
        assert (await mallory.request("clerk", Redact(message=b64(digest), reason="x"))).erased == 1
        at_keeper = find_erasable(iter(log), digest, of=net._node.name_id("keeper"))
        assert at_keeper.boxes and all(log.box(name) is not None for name in at_keeper.boxes)
        at_clerk = find_erasable(iter(log), digest, of=net._node.name_id("clerk"))
        assert at_clerk.boxes and all(log.box(name) is None for name in at_clerk.boxes)
        assert net.evidence("keeper").verify()["REDACTED"].checked == 1


# ── finding it ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_requests_for_random_digests_read_the_log_once(lab: Lab, tmp_path: Path) -> None:
    """Mallory asks for what is not there, again and again: each entry is looked at once, ever."""
    log = lab.open(tmp_path)
    digests = []
    for _ in range(300):
        frames = lab.request()
        lab.log(log, frames, "dave", sent=False)
        digests += [leaf_hash(decode_frame(frame, LIMITS).header) for frame in frames]
    log.checkpoint()
    for at in range(50):
        assert list(log.about(at.to_bytes(32, "big"))) == []
    assert log._whereabouts.indexed == 600
    lab.log(log, lab.request(), "dave", sent=False)
    assert len(list(log.about(bytes(32)))) == 2  # what no checkpoint covers is not in the table, and is read
    log.checkpoint()
    assert list(log.about(bytes(32))) == [] and log._whereabouts.indexed == 602
    for digest in (digests[0], digests[255], digests[-1]):
        assert find_erasable(log.about(digest), digest) == find_erasable(iter(log), digest)
    log.close()
    log = lab.open(tmp_path)
    assert (
        find_erasable(log.about(digests[7]), digests[7]).boxes and log._whereabouts.indexed == 0
    )  # CLOSE is no message
    log.close()


@pytest.mark.parametrize("harm", ["deleted", "cut", "junk", "of another log"])
def test_the_table_of_messages_is_made_again(lab: Lab, tmp_path: Path, harm: str) -> None:
    log = lab.open(tmp_path)
    lab.write(log)
    log.checkpoint()
    digest = next(leaf_hash(e.header) for e in map(decode_entry, log) if isinstance(e, Sent))
    path = tmp_path / "messages.sqlite"
    found = find_erasable(log.about(digest), digest)
    assert found.boxes and path.exists()
    if harm == "deleted":
        path.unlink()
    elif harm == "of another log":
        with sqlite3.connect(path) as db:
            db.execute("UPDATE reached SET offset = 1000000")
        db.close()
    else:
        path.write_bytes(path.read_bytes()[:5000] if harm == "cut" else b"junk" * 2000)
    assert find_erasable(log.about(digest), digest) == found
    log.close()
    assert lab.verify(tmp_path).ok
