"""Verifying a log offline: from what was found in its parts to separate verdicts.

Rule 1: nothing is believed because the log says so: keys come from the directory's log, and that from the pinned root.
Rule 2: a negative verdict names every place; nothing stops at the first. What cannot be judged is None, with a reason,
and never counts as good.
Rule 3: one pass, and memory for the blobs' index, the statements, 32 bytes for 256 entries, and the problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from agentbus.crypto.keys import VerifyKey
from agentbus.crypto.merkle import Tree, empty_root, node_hash
from agentbus.errors import AgentBusError
from agentbus.log.checkpoint import Origin, parse_origin, verify_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Redaction
from agentbus.log.history import History, Statements
from agentbus.log.judge import verdicts_of
from agentbus.log.outline import UNIT
from agentbus.log.part import Part, Run
from agentbus.log.read import LogFolder
from agentbus.log.report import Report, Tally, Verdict
from agentbus.log.scanning import Unit
from agentbus.log.sweep import Sweep, statement_blobs
from agentbus.log.tiles import WIDTH, TileTree, tile_path
from agentbus.log.witness import Held, count_for, forward_dated, judge_notes
from agentbus.wire.ids import b64
from agentbus.wire.limits import SECOND

Parts = Callable[[Sequence[Unit], Sequence[int]], Iterable[Part]]
"""(units, sizes at which roots are wanted) → the parts in order, whoever reads them."""
UNCOVERED: Final = 60 * SECOND
"""As long a stretch of entries as a writer that was busy, or killed, may leave behind its last checkpoint."""
_UNSIGNED: Final = "no instance of this node is known, so the checkpoint's signature was not judged"


def verify_log(log: LogFolder, *, events: Sequence[bytes], root: bytes) -> Report:
    """Judge one log by itself. Everything that is wrong with it is a verdict; nothing raises.

    Args:
        log: What :func:`agentbus.log.read.read_log` gave.
        events: The directory log's encoded statements, in order.
        root: The pinned thumbprint of the root key, 32 bytes.
    """
    return Verification(log, History(events, root)).run()


class Verification:
    """One run over one log.

    Args:
        log: The folder.
        history: The directory, folded from the pinned root.
        held: Checkpoints of it that others keep.
        parts: What reads the parts; by default they are read here, one after the other.
    """

    def __init__(self, log: LogFolder, history: History, held: Sequence[Held] = (), parts: Parts | None = None) -> None:
        self._log = log
        self._history = history
        self._held = list(held)
        self._parts = parts or self.read_here
        self._found = Part()
        self._intact = Tally()
        self._groups = Tree()
        self._signer_key: bytes | None = None  # what the checkpoint's signature was found good under

    def run(self) -> Report:
        """The verdicts."""
        for damage in self._log.damage:
            self._intact.problem(str(damage))
        sizes = [held.said.size for held in self._held]
        for part in self._parts(self._log.units(UNIT), sizes):
            self._found.add(part)
        found = self._found
        self._intact.add(found.intact)
        self._add_later_redactions()
        self._check_unfinished()
        for group in found.groups:
            self._groups.append(group)
        self._check_checkpoint()
        covered = self._log.said.size if self._log.said else 0
        held = count_for(self._held, self.keys)
        forked, truncated = judge_notes(
            held, entries=found.entries, covered=covered, root_at=self.root_at, strange=len(self._held) - len(held)
        )
        for text in forward_dated(held, found.latest_at):
            found.judged.setdefault("KEY-VALID", Tally()).problem(text)
        mine = {
            "INTACT": self._intact_verdict(),
            "NOT-FORKED": forked,
            "NOT-TRUNCATED": truncated,
            "COMPLETE": _complete(found),
            **_bodies(found),
        }
        return Report({**verdicts_of(found.judged, self._history), **mine})

    def _add_later_redactions(self) -> None:
        """A body may have been erased while this was reading; the entry that says so stands behind what was read."""
        if all(one.commitment in self._found.redacted for one in self._found.absent):
            return
        for data in self._log.later():
            with suppress(AgentBusError):
                entry = decode_entry(data)
                if isinstance(entry, Redaction):
                    self._found.redacted.add(entry.commitment)

    def _check_unfinished(self) -> None:
        """A blob or box that is only half there is being written now, unless an entry misses it."""
        found = self._found
        erased = {one.digest for one in found.absent if one.commitment in found.redacted}
        lacking = any(one.digest not in erased for one in found.absent)
        if lacking or self._intact.bad or found.judged.get("AUTHENTIC", Tally()).bad:
            for place in self._log.unfinished:
                self._intact.problem(str(place))

    @property
    def keys(self) -> set[bytes]:
        """The log's own keys, once :meth:`run` is over: an honest log has one."""
        signer = {self._signer_key} if self._signer_key is not None else set()
        return {*self._found.log_keys, *signer}

    @property
    def found(self) -> Part:
        """All that was found, once :meth:`run` is over."""
        return self._found

    def root_at(self, size: int) -> bytes | None:
        """The root over the first ``size`` entries as they are here; None where damage makes it unknowable."""
        found = self._found
        if size == 0:
            return empty_root()
        if size > found.entries or (found.broken is not None and size > found.broken):
            return None
        full, rest = divmod(size, WIDTH)
        root = found.partial.get(size) if rest else None
        if rest and root is None:
            return None
        for height in range(full.bit_length()):
            if full >> height & 1:
                peak = self._groups.node(height, (full >> height) - 1)
                root = peak if root is None else node_hash(peak, root)
        return root

    def read_here(self, units: Sequence[Unit], sizes: Sequence[int]) -> Iterable[Part]:
        """Read the parts in this process, one after the other."""
        sweep = Sweep(self._log, self._history, sizes)
        return map(sweep.read, units)

    # ── the checkpoint ───────────────────────────────────────────────────────────────────────────────────────────

    def _check_checkpoint(self) -> None:
        """The checkpoint is this log's, by the key its node's instance statements name, over the root found here."""
        note, said, found = self._log.note, self._log.said, self._found
        if note is None or said is None:
            if found.entries or note is not None:
                self._intact.problem("there is no readable checkpoint: nothing vouches for what is here")
            return
        if said.size > found.entries:
            self._intact.problem(f"{said.size} entries were signed over, {found.entries} are here")
        else:
            root = self.root_at(said.size)
            if root is not None and root != said.root:
                self._intact.problem(f"the root of {said.size} entries is {b64(root)}, signed was {b64(said.root)}")
            self._check_upper_tiles(said.size)
        try:
            origin = parse_origin(said.origin)
        except AgentBusError as error:
            self._intact.problem(f"checkpoint: {error}")
            return
        if not self._history.full.size:
            self._intact.problem("not one entry of the directory's log is good under this root: is it the pinned one?")
        elif origin.domain != self._history.full.domain:
            self._intact.problem(f"a log of {origin.domain}, the directory is {self._history.full.domain}'s")
        key = self._signer(note, origin)
        if key is None:
            if found.messages or found.log_keys:
                self._intact.problem(f"no log key that an instance statement of node {origin.node} names signed this")
            return
        self._signer_key = key
        for other, position in found.log_keys.items():
            if other != key:
                self._intact.problem(f"entry {position}: its instance's log is signed by another key")

    def _check_upper_tiles(self, size: int) -> None:
        """Tiles above the lowest level; those were compared where their entries were read."""
        if self._found.broken is not None and self._found.broken < size:
            return
        tree = TileTree()
        tiles = [*tree.extend(self._found.groups[: size // WIDTH]), *tree.partial()]
        for tile in tiles:
            path = tile_path(tile.level + 1, tile.number, tile.width)
            data = self._log.file(path)
            if data is None and tile.width < WIDTH:
                full = self._log.file(tile_path(tile.level + 1, tile.number))
                data = full[: len(tile.data)] if full is not None else None
            if data != tile.data:
                what = "is missing" if data is None else "is not what the entries hash to"
                self._intact.problem(f"{path}: this tile {what}")

    def _signer(self, note: bytes, origin: Origin) -> bytes | None:
        """The log key that signed the note, among those that this node's statements name."""
        statements = Statements(statement_blobs(self._log), self._history)
        for raw in {instance.log_key for instance in statements if instance.node == origin.node}:
            try:
                verify_checkpoint(note, str(origin), VerifyKey(raw))
            except AgentBusError:
                continue
            return raw
        return None

    def _intact_verdict(self) -> Verdict:
        said = self._log.said
        behind = self._found.entries - said.size if said else 0
        parts = [f"{behind} entries after the checkpoint are not covered"] if behind > 0 else []
        parts += [f"{place}, not covered" for place in self._log.unfinished]
        reason = "; ".join(parts)
        if said is not None and self._signer_key is None:
            verdict = self._intact.verdict(reason=reason)
            return verdict if verdict.ok is False else Verdict(None, verdict.checked, [], _UNSIGNED)
        early, late = self._found.behind or (0, 0)
        if late - early > UNCOVERED:  # whoever has the disk may have put back an old checkpoint and written on
            reason = f"{reason}: they span {(late - early) // SECOND} s, and a running node signs one in each"
            verdict = self._intact.verdict(reason=reason)
            return verdict if verdict.ok is False else Verdict(None, verdict.checked, [], reason)
        return self._intact.verdict(nothing="the log is empty", reason=reason)


def _bodies(found: Part) -> dict[str, Verdict]:
    """REDACTED, MISSING and REPLAYABLE: three views of what is not there any more."""
    erased = {one.digest for one in found.absent if one.commitment in found.redacted}
    redacted, missing, inputs = 0, found.missing, found.inputs
    without = 0
    for one in found.absent:
        if one.digest in erased:
            redacted += one.commitment is not None
            without += 1
        elif one.commitment is not None:
            missing.problem(f"entry {one.position}: its body is absent and no redaction says why")
            inputs.problem(f"entry {one.position}: its body is absent")
        else:
            inputs.problem(f"entry {one.position}: the result of this step is absent and no redaction says why")
    refused = f"{found.bodiless} refused messages are kept without their bodies" if found.bodiless else ""
    return {
        "MISSING": missing.verdict(nothing="no message with a body", reason=refused),
        "REDACTED": Verdict(True, redacted, [], f"{redacted} bodies were erased on purpose"),
        "REPLAYABLE": _replayable(inputs, without),
    }


def _replayable(inputs: Tally, without: int) -> Verdict:
    verdict = inputs.verdict(nothing="nothing was asked of an agent here")
    if verdict.ok and without:
        return Verdict(None, verdict.checked, [], f"{without} bodies or results were erased on purpose")
    return verdict


def _complete(found: Part) -> Verdict:
    """What one log says by itself: what an instance sent is numbered from 1 without a gap, and its fate is on record.

    What it received is numbered by its senders. A gap there is a message that was lost, refused or not yet sent again,
    and only the sender's log tells which; so it is named and is no verdict.
    """
    tally = Tally()
    lacking = 0
    for (instance, to), runs in sorted(found.runs.items()):
        if to:
            lacking += _gaps(runs)
            continue
        tally.checked += sum(run.last - run.first + 1 for run in runs)
        name = f"{instance.rpartition('/')[2]}"
        if runs[0].first != 1:
            tally.problem(f"entry {runs[0].position}: the first message that {name} sent has number {runs[0].first}")
        for before, after in zip(runs, runs[1:], strict=False):
            if after.first <= before.last:
                tally.problem(f"entry {after.position}: {name} numbers two messages {after.first}")
            else:
                tally.problem(
                    f"entry {after.position}: after message {before.last} of {name} comes {after.first};"
                    f" {after.first - before.last - 1} are missing"
                )
    if found.broken is None:  # else it may stand in what cannot be read
        for text in found.fates.problems():
            tally.problem(text)
    reason = "gaps in what was sent, and what became of it; what was received needs its senders' logs"
    if lacking:
        reason += f" ({lacking} of theirs are not here)"
    return tally.verdict(nothing="nothing was sent", reason=reason)


def _gaps(runs: list[Run]) -> int:
    """How many numbers below the highest are not there; they may come in any order."""
    top = missing = 0
    for run in sorted(runs):
        missing += max(0, run.first - top - 1)
        top = max(top, run.last)
    return missing
