"""Who runs where: instance statements, the standing grant that answers each, and whose node has which name.

Rule 1: presence is no entry of the log, save for one thing: the first node of a name binds the name to the principal
whose CURVE key it has, for good. The origin of a node's log is made of that name, so nobody else may ever have it.
Rule 2: a grant that the directory signs is written down before it is handed out, until it ends: whoever retires its
holder is told of it, however often the directory was started meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from agentbus.crypto.keys import SigningKey, VerifyKey
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.grant import Grant, Link, encode_chain
from agentbus.delegation.statements import Instance, decode_signed, directory_id
from agentbus.delegation.trust import Trust
from agentbus.directory.granted import Granted, GrantTable
from agentbus.directory.store import Store
from agentbus.errors import DirectoryRefused
from agentbus.wire.ids import PrincipalId, may_be_called, node_name

CODES: Final = {
    "directory.node_taken": "A node of this name is another principal's, or runs elsewhere; a name is never passed on.",
    "directory.node_name": "A node is called like the principal whose CURVE key it has, or that with a number.",
    "directory.node_names": "One principal's nodes may have so many names, and no more; use those it has.",
    "directory.instances": "One principal may run, or have run within the hour, so many instances, and no more.",
    "directory.no_standing": "Only a running, active instance is given a standing grant.",
}

STANDING_DEPTH: Final = 4
LIVE: Final = 256  # instances of one principal that run at a time
KNOWN: Final = 1024  # of which statements still count; one that ended is kept until its window is over
NODE_NAMES: Final = 64  # of one principal; each is kept by everybody for good


class Keys(Protocol):
    """Of a directory's online keys, the one that standing grants are signed with."""

    @property
    def consent(self) -> SigningKey: ...


class LogOfPrincipals(Protocol):
    """What presence needs of a directory: what its log leads to, and a way to add to it."""

    trust: Trust
    store: Store

    @property
    def keys(self) -> Keys: ...
    @property
    def domain(self) -> str: ...
    def require_whole(self) -> None: ...
    def write(self, now: int, events: Sequence[tuple[str, str, list[Any]]]) -> None: ...


class Presence:
    """The instances of one directory's trust domain.

    Args:
        directory: Whose log says who they may be.
    """

    def __init__(self, directory: LogOfPrincipals) -> None:
        self._directory = directory
        self.grants = GrantTable(directory.store.folder)
        self._gone: set[bytes] = set()  # key ids of instances that ended: no presence, yet their links still verify
        self._at: dict[str, set[bytes]] = {}  # key ids of instances that did not, by their node's name
        self._of: dict[bytes, set[bytes]] = {}  # the same, by CURVE key
        self._live: dict[str, set[bytes]] = {}  # the same, by principal

    def publish(self, statement: bytes, *, now: int, link_id: bytes) -> bytes:
        """Accept an instance statement and answer it with a standing grant.

        Returns:
            The standing chain's bytes: one link, signed by the consent key, ending with the instance key.

        Raises:
            Rejected: the statement is not good. DirectoryRefused: ``directory.no_standing``, ``directory.node_taken``,
                ``directory.node_name``, ``directory.node_names``, ``directory.instances``, ``directory.must_rotate``,
                ``directory.restored``.
            LogError: ``log.directory_grants``.
        """
        directory = self._directory
        directory.require_whole()
        instance = Instance.decode(decode_signed(statement).body)
        key = VerifyKey(instance.key).id
        before = directory.trust.instances.get(key)
        made = instance.not_before if before else now  # whoever holds a key dates what it signs as it likes
        if directory.trust.closed_to(instance.identity_key, made, through_instance=False):
            raise DirectoryRefused("directory.must_rotate", f"a newer key of {instance.principal.short} must sign this")
        owner = directory.trust.nodes.get(instance.node)
        if owner is not None and owner != directory.trust.curve_keys.get(instance.curve_key):
            raise DirectoryRefused("directory.node_taken", f"the name {instance.node!r} belongs to {owner.short}")
        trust = directory.trust.advance(statement, now=now)
        code = trust.refuses(instance, now)
        if code is not None:
            raise DirectoryRefused("directory.no_standing", f"{instance.principal.short} may not speak now ({code})")
        self._require_free(instance, now)
        if before is None:
            self._require_few(instance.principal)
        if owner is None:
            self._bind(instance, now)
            trust = directory.trust.advance(statement, now=now)
        link = self._standing(instance, now=now, link_id=link_id)
        self.granted(link, instance.principal, instance=instance.handle)
        directory.trust = trust
        if before is not None:
            self._depart(key, before)  # it may live in another node now
        self._arrive(key, trust.instances[key])
        return encode_chain((link,))

    def _require_few(self, who: PrincipalId) -> None:
        """What one principal publishes, everybody who looks for somebody walks through."""
        if len(self._live.get(who, ())) >= LIVE or len(self._directory.trust.present.get(who, ())) >= KNOWN:
            raise DirectoryRefused(
                "directory.instances", f"{who.short} runs, or ran within the hour, as often as it may", retryable=True
            )

    def _tables(self, instance: Instance) -> list[tuple[dict[Any, set[bytes]], Any]]:
        return [(self._at, instance.node), (self._of, instance.curve_key), (self._live, instance.principal)]

    def _arrive(self, key: bytes, instance: Instance) -> None:
        self._gone.discard(key)
        for table, place in self._tables(instance):
            table.setdefault(place, set()).add(key)

    def _depart(self, key: bytes, instance: Instance) -> None:
        for table, place in self._tables(instance):
            there = table.get(place, set())
            there.discard(key)
            if not there:
                table.pop(place, None)

    def _require_free(self, instance: Instance, now: int) -> None:
        """Two processes of one principal are two nodes: each has a log of its own, and so a name of its own."""
        for key in self._at.get(instance.node, ()):
            other = self._directory.trust.instances.get(key)
            if other is not None and other.not_after > now and other.log_key != instance.log_key:
                raise DirectoryRefused("directory.node_taken", f"a running node is called {instance.node!r}")

    def _bind(self, instance: Instance, now: int) -> None:
        trust = self._directory.trust
        owner = trust.curve_keys[instance.curve_key]
        if not may_be_called(instance.node, owner):
            mine = node_name(owner)
            raise DirectoryRefused("directory.node_name", f"a node of {owner.short} is called {mine}, or {mine}-2, …")
        if len(trust.principals[owner].nodes) >= NODE_NAMES:
            raise DirectoryRefused("directory.node_names", f"{owner.short} has {NODE_NAMES} nodes' names already")
        self._directory.write(now, [("node", owner, [instance.node])])

    def _standing(self, instance: Instance, *, now: int, link_id: bytes) -> Link:
        directory = self._directory
        record = directory.trust.principals[instance.principal]
        grant = Grant(
            directory_id(directory.domain), 1, directory.keys.consent.id, now, instance.principal, instance.epoch,
            instance.identity_key, instance.principal, None, 0, None, instance.not_before, instance.not_after,
            record.ceiling, record.may_talk_to, STANDING_DEPTH, link_id, None, None, "standing",
        )  # fmt: skip
        body = grant.encode()
        return Link(grant, body, sign(directory.keys.consent, Purpose.GRANT, body))

    def granted(self, link: Link, holder: str, *, instance: bytes = b"") -> None:
        """Write down a grant that the directory signed, before anybody is handed it.

        Args:
            link: The signed grant.
            holder: To whom it goes.
            instance: Handle of the instance that a standing grant is for.
        """
        grant = link.grant
        self.grants.add(Granted(link.digest, holder, grant.subject, grant.expires, instance))

    def leave(self, curve_key: bytes, instance_ids: Iterable[bytes] | None = None) -> list[bytes]:
        """A node's instances ended, all or some; their key ids."""
        wanted = None if instance_ids is None else set(instance_ids)
        known = self._directory.trust.instances
        there = [(key, known[key]) for key in self._of.get(curve_key, ()) if key in known]
        gone = [(key, one) for key, one in there if wanted is None or one.instance_id in wanted]
        for key, instance in gone:
            self._depart(key, instance)
            self._gone.add(key)
        return [key for key, _ in gone]

    def ended(self) -> list[bytes]:
        """Key ids of instances that ended before their windows did, in no order."""
        return list(self._gone)

    def statements(self, keys: Iterable[bytes], principals: Iterable[str], now: int) -> list[bytes]:
        """Instance statements: by key id even of those that ended, whose links still verify; of principals, running."""
        trust = self._directory.trust
        found = {key: trust.statements[key] for key in keys if key in trust.statements}
        for who in principals:
            for instance in trust.instances_of(who, now):
                key = VerifyKey(instance.key).id
                if key not in self._gone:
                    found[key] = trust.statements[key]
        return list(found.values())

    def running(self, who: str, now: int) -> int:
        """How many instances of a principal run."""
        trust = self._directory.trust
        live = (trust.instances.get(key) for key in self._live.get(who, ()))
        return sum(1 for one in live if one is not None and trust.refuses(one, now) is None)

    def runs(self, key_id: bytes) -> bool:
        """Whether the instance of this key has not said that it ended."""
        return key_id in self._directory.trust.instances and key_id not in self._gone

    def forget_expired(self, now: int) -> None:
        """Drop instances whose window is over, and grants that ended."""
        trust = self._directory.trust
        over = [key for key, instance in trust.instances.items() if instance.not_after <= now]
        for key in over:
            self._depart(key, trust.instances[key])
            self._gone.discard(key)
        if over:
            self._directory.trust = trust.without_instances(over)
        self.grants.forget(now)
