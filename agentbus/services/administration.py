"""The directory as an agent: what people and agents ask of it in ordinary signed requests.

Rule 1: each handler first asks :mod:`agentbus.directory.rules` whether the sender may, then lets the directory write.
Rule 2: what establishes trust by itself (statements, rotations, enrolments) does not come this way.
"""

from __future__ import annotations

from agentbus.delegation.records import Principal
from agentbus.directory import evidence, life, rules
from agentbus.errors import DirectoryRefused
from agentbus.runtime.admin import (
    Card,
    Cards,
    Compromised,
    CreatePrincipal,
    Done,
    List,
    LostKey,
    NewToken,
    Retire,
    Retired,
    Revoke,
    SetState,
    Show,
    Taint,
    Token,
)
from agentbus.runtime.agent import Agent
from agentbus.runtime.context import Context
from agentbus.services.directory import DirectoryServer, token_curve_key
from agentbus.wire.ids import PrincipalId, b64, everyone, name_id
from agentbus.wire.limits import LIMITS


def directory_agent(server: DirectoryServer) -> Agent[None]:
    """The agent that answers for ``server``'s directory."""
    agent: Agent[None] = Agent("directory", description="Who is who, and who may do what")
    core = server.core
    now = server.clock.now

    def card(record: Principal) -> Card:
        return Card(
            id=record.id,
            state=record.state,
            epoch=record.epoch,
            owner=record.owner,
            purpose=record.purpose,
            ceiling=[str(s) for s in record.ceiling],
            may_talk_to=list(record.may_talk_to),
            rights=None if record.rights is None else [str(s) for s in record.rights],
            tags=list(record.tags),
            keys=[f"{b64(k)} {core.trust.key_state_at(k, now())}" for k in record.keys],
            nodes=list(record.nodes),
            running=core.presence.running(record.id, now()),
        )

    def named(name: str) -> Principal:
        record = core.trust.principal(name_id(name, core.domain))
        if record is None:
            kind = name_id(name, core.domain).kind
            raise DirectoryRefused("directory.unknown", f"nobody is called {name}; `agentbus {kind} list` shows who is")
        return record

    def owned(name: str, by: PrincipalId) -> Principal:
        record = named(name)
        rules.require_owner(core.trust, by, record)
        core.charge(by, now=now())
        return record

    def token_for(who: PrincipalId) -> Token:
        secret = server.entropy(32)
        expires = core.issue_token(who, token_curve_key(secret).public, now=now())
        return Token(token=f"abe_{b64(secret)}.{core.domain}", expires=expires)

    def done() -> Done:
        return Done(seq=core.trust.size - 1)

    @agent.handler
    async def create(request: CreatePrincipal, ctx: Context[None]) -> Token:
        rules.require_operator(core.trust, ctx.sender)
        who = name_id(request.name, core.domain)
        owner = named(request.owner).id if request.owner else ctx.sender
        targets = [everyone(core.domain) if t == "*" else str(name_id(t, core.domain)) for t in request.may_talk_to]
        core.add_principal(
            who, now=now(), owner=owner, purpose=request.purpose, ceiling=request.ceiling, may_talk_to=targets,
            rights=None if request.rights == "all" else request.rights, tags=request.tags,
        )  # fmt: skip
        return token_for(who)

    @agent.handler
    async def list_all(request: List, ctx: Context[None]) -> Cards:
        found = [card(r) for r in core.trust.principals.values() if r.id.kind == request.kind]
        return Cards(agents=sorted(found, key=lambda c: c.id))

    @agent.handler
    async def show(request: Show, ctx: Context[None]) -> Card:
        return card(named(request.name))

    @agent.handler
    async def new_token(request: NewToken, ctx: Context[None]) -> Token:
        record = named(request.name)
        rules.require_sponsor(core.trust, ctx.sender, record)
        core.charge(ctx.sender, now=now())
        core.require_keyless(record)
        return token_for(record.id)

    @agent.handler
    async def lost_key(request: LostKey, ctx: Context[None]) -> Token:
        record = named(request.name)
        rules.require_sponsor(core.trust, ctx.sender, record)
        core.charge(ctx.sender, now=now())
        life.lose_key(core, record.id, now=now())
        return token_for(record.id)

    @agent.handler
    async def set_state(request: SetState, ctx: Context[None]) -> Done:
        life.set_state(core, owned(request.name, ctx.sender).id, request.state, now=now())
        return done()

    @agent.handler
    async def taint(request: Taint, ctx: Context[None]) -> Done:
        who = owned(request.name, ctx.sender).id
        life.taint(core, who, now=now(), key=life.parse_key(request.key) if request.key else None)
        return done()

    @agent.handler
    async def compromised(request: Compromised, ctx: Context[None]) -> Done:
        record = owned(request.name, ctx.sender)
        if request.since < core.trust.last_instant - LIMITS.skew:
            rules.require_sponsor(core.trust, ctx.sender, record)  # else anybody disowns what it signed
        key = life.parse_key(request.key) if request.key else None
        life.compromise(core, record.id, since=request.since, now=now(), key=key)
        return done()

    @agent.handler
    async def retire(request: Retire, ctx: Context[None]) -> Retired:
        who = owned(request.name, ctx.sender).id
        receipt = life.retire(core, who, now=now(), reason=request.reason)
        return Retired(receipt=evidence.receipt_of(core, receipt, now=now()))

    @agent.handler
    async def revoke(request: Revoke, ctx: Context[None]) -> Done:
        handle, proof = rules.may_revoke(core.trust, ctx.sender, request.kind, request.id, request.chain, now=now())
        about = rules.whose(core.trust, request.kind, handle)
        if about is not None and request.kind != "grant":
            life.require_expendable(core, about)
        core.revoke(request.kind, handle, revoker=ctx.sender, reason=request.reason, now=now(), proof=proof)
        return done()

    return agent
