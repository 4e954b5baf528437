"""What one message of a flow was found to be says nothing about another that differs in what was judged.

In each attack a message that is good in every respect comes first, and behind it comes one that is alike but for one
thing: the one verdict that has to be negative is, and it says so of that message alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loglab import Lab

from agentbus.crypto.signing import Purpose, sign
from agentbus.log.report import Report
from agentbus.logstore.files import FileLog
from agentbus.protocol.sealing import Batch, Draft
from agentbus.testing.draw import HOUR, NOON, chain_bytes, draw_chain, seed, standing
from agentbus.wire.frame import decode_frame, encode_frame
from agentbus.wire.header import Kind, decode_header, encode_header
from agentbus.wire.limits import LIMITS, SECOND

DIRECT = "alice -[quote]-> dave"
Attack = Callable[[Lab, FileLog], None]


def alike(lab: Lab, log: FileLog, **verdict: Any) -> None:
    """Two more requests of the one flow."""
    lab.log(log, lab.request(DIRECT), "dave", sent=False, **verdict)


def under(lab: Lab, log: FileLog, chain: bytes, **changes: Any) -> None:
    """Two requests under some chain."""
    lab.log(log, lab.envelope("dave", "carol", Kind.REQUEST, chain, b"{}", **changes), "dave", sent=False)


def after_the_chain_ended(lab: Lab, log: FileLog) -> None:
    chain = chain_bytes(draw_chain(DIRECT, world=lab.world, expires=NOON + SECOND))
    frames = [lab.envelope("dave", "carol", Kind.REQUEST, chain, b"{}") for _ in range(2)]
    lab.log(log, frames[0], "dave", sent=False, instant=NOON + SECOND - 1)
    lab.log(log, frames[1], "dave", sent=False, instant=NOON + SECOND)


def after_the_key_ended(lab: Lab, log: FileLog) -> None:
    alike(lab, log, instant=NOON + HOUR)


def before_the_directory_had_said_it(lab: Lab, log: FileLog) -> None:
    alike(lab, log, instant=NOON - LIMITS.skew - 1)


def under_a_directory_that_had_revoked_the_key(lab: Lab, log: FileLog) -> None:
    lab.world.revoke("instance", lab.world["dave"].running.handle)
    alike(lab, log)


def under_a_directory_that_had_revoked_the_grant(lab: Lab, log: FileLog) -> None:
    lab.world.revoke("grant", draw_chain(DIRECT, world=lab.world)[0].digest)
    alike(lab, log)


def with_another_number_of_revocations(lab: Lab, log: FileLog) -> None:
    alike(lab, log, revocation_seq=1)


def under_a_directory_that_nobody_has(lab: Lab, log: FileLog) -> None:
    alike(lab, log, directory_size=lab.world.trust.size + 1)


def over_somebody_elses_connection(lab: Lab, log: FileLog) -> None:
    alike(lab, log, connection=lab.world["dave"].curve.public)
    alike(lab, log, connection=lab.world["erin"].curve.public)


def in_another_conversation(lab: Lab, log: FileLog) -> None:
    mine = seed("conversation")[:16]
    chain = chain_bytes(draw_chain(DIRECT, world=lab.world, changes={0: {"conversation": mine}}))
    under(lab, log, chain)
    under(lab, log, chain, conversation=seed("another")[:16])


def to_somebody_who_is_no_target(lab: Lab, log: FileLog) -> None:
    chain = chain_bytes(draw_chain(DIRECT, world=lab.world, targets=["carol"]))
    under(lab, log, chain)
    under(lab, log, chain, recipient=lab.world["erin"].id)


def with_another_chain_of_the_same_header(lab: Lab, log: FileLog) -> None:
    own = log.put_blob(chain_bytes(standing(lab.world, "dave")))
    alike(lab, log, chain=own)


def under_somebody_elses_statement(lab: Lab, log: FileLog) -> None:
    alike(lab, log, statement=log.put_blob(lab.statements["erin"]))


def with_another_purpose(lab: Lab, log: FileLog) -> None:
    """Signed as live, flagged as a replay: the flag is in the header, so it is in a batch of its own."""
    under(lab, log, lab.chains[DIRECT], flags=1)


def in_a_batch_that_nobody_signed(lab: Lab, log: FileLog) -> None:
    """A header with another message id, in the place of the one that was signed."""
    frame = decode_frame(lab.request(DIRECT)[1], LIMITS)
    header = decode_header(frame.header, LIMITS)._replace(message_id=b"x" * 16)
    forged = frame._replace(header=encode_header(header))
    lab.log(log, [encode_frame(frame), encode_frame(forged)], "dave", sent=False)


ATTACKS: list[tuple[Attack, str, int]] = [
    (after_the_chain_ended, "AUTHORISED", 2),
    (after_the_key_ended, "KEY-VALID", 2),
    (before_the_directory_had_said_it, "KEY-VALID", 2),
    (under_a_directory_that_had_revoked_the_key, "KEY-VALID", 2),
    (under_a_directory_that_had_revoked_the_grant, "AUTHORISED", 2),
    (with_another_number_of_revocations, "KEY-VALID", 2),
    (under_a_directory_that_nobody_has, "KEY-VALID", 2),
    (over_somebody_elses_connection, "KEY-VALID", 2),
    (in_another_conversation, "AUTHORISED", 2),
    (to_somebody_who_is_no_target, "AUTHORISED", 2),
    (with_another_chain_of_the_same_header, "INTACT", 2),
    (under_somebody_elses_statement, "AUTHENTIC", 2),
    (with_another_purpose, "AUTHENTIC", 2),
    (in_a_batch_that_nobody_signed, "AUTHENTIC", 1),
]


@pytest.mark.parametrize(("attack", "verdict", "bad"), ATTACKS, ids=lambda one: getattr(one, "__name__", None))
def test_a_message_behind_a_good_one_of_its_flow(attack: Attack, verdict: str, bad: int, tmp_path: Path) -> None:
    lab = Lab()
    log = lab.open(tmp_path)
    for name in ("carol", "erin"):
        log.put_blob(lab.statements[name])
    alike(lab, log)
    before = log.size
    attack(lab, log)
    log.close()
    report: Report = lab.verify(tmp_path)
    assert report[verdict].ok is False, report.as_dict()
    places = [int(text.split()[1]) for text in report[verdict].problems if text.startswith("entry ")]
    assert places == list(range(log.size - bad, log.size)) and places[0] >= before, report[verdict].problems


def test_a_flow_that_goes_on_behind_the_bad_one_is_good_again(tmp_path: Path) -> None:
    lab = Lab()
    log = lab.open(tmp_path)
    log.put_blob(lab.statements["carol"])
    for size in (0, 1, 0):
        alike(lab, log, directory_size=lab.world.trust.size + size)
    log.close()
    report = lab.verify(tmp_path)
    assert [text.split()[1] for text in report["KEY-VALID"].problems] == ["2", "3"]
    assert report["KEY-VALID"].checked == report["AUTHENTIC"].checked == 6 and report["AUTHENTIC"].ok


def test_messages_of_one_batch_in_two_flows_are_all_judged(tmp_path: Path) -> None:
    """Two recipients under one signature, one of whom is no target."""
    lab = Lab()
    log = lab.open(tmp_path)
    for name in ("carol", "erin"):
        log.put_blob(lab.statements[name])
    dave, erin = lab.world["dave"], lab.world["erin"]
    chain = chain_bytes(draw_chain(DIRECT, world=lab.world, targets=["carol"]))
    frames = [frame for _ in range(4) for frame in lab.envelope("dave", "carol", Kind.REQUEST, chain, b"{}")]
    drafts = []
    for at, part in enumerate(decode_frame(frame, LIMITS) for frame in frames):
        header = decode_header(part.header, LIMITS)
        if at % 2:
            header = header._replace(recipient=erin.id, recipient_instance=erin.running.instance_id)
        drafts.append(Draft.of(encode_header(header), part.chain, b"", part.salt, part.body))
    batch = Batch.prepare(drafts, key_id=dave.instance.id, instance_id=dave.running.instance_id)
    lab.log(log, batch.attach(sign(dave.instance, Purpose.BATCH, batch.to_sign)), "dave", sent=False)
    log.close()
    report = lab.verify(tmp_path)
    assert report["AUTHENTIC"].ok and report["AUTHENTIC"].checked == 8
    assert [int(text.split()[1]) for text in report["AUTHORISED"].problems] == [1, 3, 5, 7]
