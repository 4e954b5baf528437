"""Token exchange over the bus: a user's token becomes an authority, an authority a token that others verify."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from joserfc import jwt as jose_jwt
from joserfc.jwk import KeySet

from agentbus import (
    AccessToken,
    Agent,
    AgentBusError,
    AtMost,
    Authority,
    Context,
    Denied,
    DirectoryRefused,
    ProgrammingError,
    Rejected,
    Request,
    Scope,
    Session,
)
from agentbus.bus.base import Bus
from agentbus.bus.opening import connect_bus
from agentbus.crypto.sealed import SealKey, seal
from agentbus.errors import InvalidKey, LogError, Malformed
from agentbus.host import DirectoryHost
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Received, Sent
from agentbus.log.read import Numbered, read_log
from agentbus.log.records import KEYS
from agentbus.runtime.exchange import (
    EndIssuer,
    ExchangeKey,
    IssuerRule,
    ListIssuers,
    PutIssuer,
    TokenKeys,
    Tokens,
    ask,
    read_sealed,
)
from agentbus.services.exchange import issuer_of
from agentbus.services.once import FILE, KEPT, Once
from agentbus.testing import ManualClock, Network
from agentbus.testing.plugin import net
from agentbus.wire.ids import b64, everyone, name_id, unb64
from agentbus.wire.limits import SECOND
from tests.authn.idp import AUDIENCE, IDP, IdentityProvider

__all__ = ["net"]

PROVIDER = IdentityProvider()
RULE: dict[str, Any] = {
    "issuer": IDP, "audience": AUDIENCE, "jwks": PROVIDER.jwks, "scopes": ["docs:*"],
    "clients": [("web", "app"), ("local", "local")], "max_depth": 2, "consent_seconds": 7200, "consent_by": ["app"],
}  # fmt: skip


class Read(Request[str]):
    name: str


class TokenPlease(Request[str]):
    audience: str


library, app, api = Agent("library"), Agent("app"), Agent("api")


@library.handler(scopes=["docs:read"], requires_user=True)
async def read(request: Read, ctx: Context) -> str:
    return f"{request.name} for {ctx.user.short if ctx.user else None} ({ctx.caller.root_kind})"


@app.handler(scopes=["docs:read"])
async def token_please(request: TokenPlease, ctx: Context) -> str:
    return (await ctx.token_for(request.audience, ["docs:read"])).value


@api.handler
async def nothing(request: Read, ctx: Context) -> str:
    return ""


class City:
    """The app's own bus, with a library, an outside audience and a user whose tokens a provider makes."""

    def __init__(self, clock: ManualClock, app: Bus, people: dict[str, Bus], net: Network | None) -> None:
        self.clock, self.app, self.people, self.net = clock, app, people, net
        self.operator = people.get("user/operator")

    def ann(self) -> Session:
        """She speaks for herself, under a grant of her own."""
        return self.net.user("ann", scopes=["docs:*"]) if self.net else self.people["user/ann"].as_user(["docs:*"])

    @property
    def now(self) -> float:
        return self.clock.now() / SECOND

    async def revoke(self, held: Authority) -> None:
        """By the operator, or by ann, who is its subject: whoever merely holds it revokes nothing."""
        with pytest.raises(DirectoryRefused) as caught:
            await self.app.revoke(held, reason="mine")
        assert caught.value.code == "directory.not_issuer"
        await (self.operator or self.ann()).revoke(held, reason="logged out")
        await self.app._node.source.refresh()

    def token(self, **changes: Any) -> str:
        return PROVIDER.token(self.now, **{"sub": "ann", "client_id": "local" if self.net else "web", **changes})


async def zeromq(folder: Path, stack: AsyncExitStack) -> City:
    clock = ManualClock()
    host = DirectoryHost(folder / "directory", listen="tcp://127.0.0.1:*", domain="agents.example")
    host.clock = clock
    await host.open()
    stack.push_async_callback(host.aclose)
    clock.drive(host.node)
    everybody = [everyone("agents.example")]
    operator = host.enrol("user/operator", may_talk_to=everybody, rights=None)
    people = {name: host.enrol(name, may_talk_to=everybody, ceiling=["docs:*"]) for name in ("app", "library", "api")}
    people |= {"user/operator": operator}
    people |= {"user/ann": host.enrol("user/ann", may_talk_to=everybody, rights=["docs:*"])}
    buses: dict[str, Bus] = {}
    for name, identity in people.items():
        log = folder / name.replace("/", "-")
        bus = await connect_bus(host.url, identity, listen="tcp://127.0.0.1:*", folder=log, clock=clock)
        stack.push_async_callback(bus.aclose)
        clock.drive(bus._node)
        buses[name] = bus
    for agent in (library, app, api):
        await stack.enter_async_context(buses[agent.name].serve(agent))
    await buses["user/operator"].request("service/directory", PutIssuer.model_validate({"rule": RULE}))
    return City(clock, buses["app"], buses, None)


@pytest.fixture(params=["memory", "zeromq"])
async def city(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[City]:
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))
    async with AsyncExitStack() as stack:
        if request.param == "zeromq":
            yield await zeromq(tmp_path, stack)
        else:
            town = await stack.enter_async_context(Network.open())
            await stack.enter_async_context(town.serve(library, app, api))
            town.user("ann", scopes=["docs:*"])
            town.trust_issuer({**RULE, "consent_by": ["app", "local"]})
            yield City(town.clock, town, {}, town)


async def test_a_users_token_becomes_an_authority_that_is_used(city: City) -> None:
    held = await city.app.exchange(city.token(), scopes=["docs:read"], depth=2, expires_in=300)
    assert (held.root_kind, held.user and held.user.short) == ("token", "user/ann")
    assert held.scopes == ("docs:read",) and held.holder == city.app.id
    assert await city.app.acting(held).request("library", Read(name="page")) == "page for user/ann (token)"
    narrower = await city.app.acting(held).delegate("api", ["docs:read"])
    assert narrower.holder.short == "api"
    assert await city.app.grants(user="ann") == [held]
    await city.revoke(held)
    assert await city.app.grants(user="ann") == []


async def test_a_token_is_good_once(city: City) -> None:
    token = city.token()
    await city.app.exchange(token, scopes=["docs:read"])
    for scopes in (["docs:read"], ["docs:read[x<=5]"]):
        with pytest.raises(Rejected) as caught:
            await city.app.exchange(token, scopes=scopes)
        assert caught.value.code == "reject.token_replayed"


async def test_a_refused_exchange_uses_nothing_up(city: City) -> None:
    token = city.token()
    with pytest.raises(Denied) as caught:
        await city.app.exchange(token, scopes=["admin"])
    assert caught.value.code == "denied.exchange_scope"
    with pytest.raises(Denied) as caught:
        await city.app.exchange(token, scopes=[])
    assert caught.value.code == "denied.exchange_empty_scope"
    assert await city.app.exchange(token, scopes=["docs:read"])


async def test_a_consent_is_recorded_and_outlives_the_token(city: City) -> None:
    text = "The app may read your documents for an hour."
    token = city.token(exp=int(city.now) + 60, auth_time=int(city.now) - 5)
    held = await city.app.exchange(token, scopes=["docs:read"], expires_in=3600, consent=text)
    assert held.root_kind == "consent" and held.expires.timestamp() > city.now + 3000
    (index,) = held.links[0].evidence
    consent = city.app._node.source.trust.consents[index]
    assert (consent.user.short, consent.holder, consent.approved_by) == ("user/ann", city.app.id, city.app.id)
    assert consent.text.hex() == hashlib.sha256(text.encode()).hexdigest()
    assert consent.method == f"token:{IDP}" and consent.authenticated_at == int(city.now - 5) * SECOND
    assert await city.app.acting(held).request("library", Read(name="x")) == "x for user/ann (consent)"


async def test_others_verify_our_access_tokens(city: City) -> None:
    """PyJWT and joserfc, with the key set that the directory shows (RFC 9068, RFC 8693 §4.1)."""
    held = await city.app.exchange(city.token(acr="mfa"), scopes=["docs:read"], depth=2)
    made = await city.app.acting(held).token_for("api", ["docs:read", "admin"])
    assert isinstance(made, AccessToken) and made.scopes == ("docs:read",) and made.value not in repr(made)
    assert 0 < made.expires.timestamp() - city.now <= 300
    keys = (await city.app.request("service/directory", TokenKeys())).model_dump()
    domain = city.app.id.domain
    audience = f"spiffe://{domain}/agent/api"

    head = jwt.get_unverified_header(made.value)
    assert (head["typ"], head["alg"]) == ("at+jwt", "EdDSA")
    key = jwt.PyJWKSet.from_dict(keys)[head["kid"]]
    no_clock = {"verify_exp": False, "verify_iat": False}  # the network's clock is turned by hand
    claims = jwt.decode(made.value, key, ["EdDSA"], audience=audience, issuer=f"spiffe://{domain}", options=no_clock)
    assert claims["sub"] == f"spiffe://{domain}/user/ann" and claims["act"] == {"sub": city.app.id}
    assert claims["client_id"] == city.app.id and claims["scope"] == "docs:read" and claims["acr"] == "mfa"
    assert claims["exp"] - claims["iat"] <= 300 and len(claims["jti"]) >= 22
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(made.value, key, ["EdDSA"], audience="spiffe://x/agent/other", options=no_clock)

    with warnings.catch_warnings(action="ignore"):
        same = jose_jwt.decode(made.value, KeySet.import_key_set(keys), algorithms=["EdDSA"])
    assert same.claims == claims


async def test_a_handler_gets_a_token_for_whom_it_acts(city: City) -> None:
    ann = city.ann()
    token = await ann.request("app", TokenPlease(audience="api"), delegate=["docs:read"])
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["sub"].endswith("/user/ann") and claims["act"] == {
        "sub": str(name_id("app", ann._node.source.trust.domain))
    }
    with pytest.raises(Denied) as caught:
        await ann.request("app", TokenPlease(audience="api"))
    assert caught.value.code == "denied.nothing_handed_over"


async def test_a_token_is_inspected_and_revoked(city: City) -> None:
    held = await city.app.exchange(city.token(), scopes=["docs:read"])
    made = await city.app.acting(held).token_for("api", ["docs:read"])
    seen = await ask(city.app, "inspect", [("token", made.value)])
    assert seen["active"] and seen["scope"] == "docs:read" and seen["act"] == {"sub": city.app.id}
    assert await ask(city.app, "revoke", [("token", made.value)]) == {}
    gone = await ask(city.app, "inspect", [("token", made.value)])
    assert (gone["active"], gone["code"]) == (False, "reject.token_revoked")
    assert await ask(city.app, "revoke", [("token", "nonsense")]) == {}, "RFC 7009 §2.2: no error"
    other = await city.app.acting(held).token_for("api", ["docs:read"])
    await city.revoke(held)
    gone = await ask(city.app, "inspect", [("token", other.value)])
    assert (gone["active"], gone["code"]) == (False, "denied.exchange_revoked"), "a revoked ancestor ends it"
    with pytest.raises(Denied) as caught:
        third = city.people.get("library") or (city.net and city.net.attacker)
        assert third is not None
        still = await city.app.token_for("api", ["docs:read"])
        await ask(third, "revoke", [("token", still.value)])
    assert caught.value.code == "denied.token", "whoever it does not name revokes nothing"
    for nothing in ("", "x", made.value[:-2]):
        assert (await ask(city.app, "inspect", [("token", nothing)]))["active"] is False


async def test_no_log_holds_a_token(city: City, tmp_path: Path) -> None:
    """Bodies are logged: so what is in them of tokens is sealed to a key that nobody keeps."""
    token = city.token()
    held = await city.app.exchange(token, scopes=["docs:read"])
    made = await city.app.acting(held).token_for("api", ["docs:read"])
    if city.net is not None:
        bodies = b"".join(c.envelope.body for c in city.net.captured)
        assert b"Sealed" not in bodies and b"sealed" in bodies
        for secret in (token, made.value):
            assert not any(part.encode() in bodies for part in secret.split("."))
    for bus in city.people.values():
        bus._node.recorder.flush()
        bus._node.recorder.log.sync()
    boxes = [data for path in tmp_path.rglob(KEYS) for data in opened_boxes(path.parent)]
    assert city.net is not None or sum(b"sealed" in data for data in boxes) >= 4, "two questions, two answers"
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (token, made.value):
        signature = secret.rpartition(".")[2]
        assert not any(signature.encode() in data or unb64(signature) in data for data in files + boxes)


def opened_boxes(folder: Path) -> list[bytes]:
    """The bodies of a log, as whoever holds its folder can read them."""
    log = read_log(folder)
    entries = [decode_entry(item.data) for item in log.entries() if isinstance(item, Numbered)]
    names = {entry.body for entry in entries if isinstance(entry, Sent | Received) and entry.body is not None}
    bodies = [log.box(name).data for name in names]
    return [body for body in bodies if body is not None]


async def test_a_grant_file_of_an_exchange_is_verified_by_everybody(city: City) -> None:
    held = await city.app.exchange(city.token(), scopes=["docs:read"])
    again = Authority.from_bytes(held.to_bytes())
    assert (await city.app.state(again)).state == "valid"
    if city.net is not None:
        city.net.trust_issuer({**RULE, "active": False})
    else:
        assert city.operator is not None
        await city.operator.request("service/directory", EndIssuer(issuer=IDP))
        await city.app._node.source.refresh()
    assert (await city.app.state(again)).refused.code == "reject.issuer"  # type: ignore[union-attr]
    with pytest.raises(Rejected) as caught:
        await city.app.acting(held).request("library", Read(name="x"))
    assert caught.value.code == "reject.issuer"


async def test_only_the_operator_configures_issuers(city: City) -> None:
    for request in (PutIssuer.model_validate({"rule": RULE}), EndIssuer(issuer=IDP)):
        with pytest.raises(DirectoryRefused) as caught:
            await city.app.request("service/directory", request)
        assert caught.value.code == "directory.not_operator"
    (rule,) = (await city.app.request("service/directory", ListIssuers())).issuers
    assert (rule.issuer, rule.active, rule.scopes) == (IDP, True, ["docs:*"])
    if city.operator is not None:
        with pytest.raises(DirectoryRefused) as caught:
            await city.operator.request("service/directory", EndIssuer(issuer="https://nobody.example"))
        assert caught.value.code == "directory.issuer"
        weak = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(32)), "kid": "w"}]}
        with pytest.raises((InvalidKey, AgentBusError)):
            await city.operator.request("service/directory", PutIssuer.model_validate({"rule": {**RULE, "jwks": weak}}))


@pytest.mark.parametrize("wrong", [{"expires_in": 0}, {"expires_in": -5}, {"scopes": [Scope("a", b=AtMost(1)), "x y"]}])
async def test_what_cannot_be_asked_is_not_sent(net: Network, wrong: dict[str, Any]) -> None:
    with pytest.raises((ProgrammingError, Malformed)) as caught:
        await net.exchange("a.b.c", **{"scopes": ["docs:read"], **wrong})
    assert caught.value.code in ("usage.exchange", "malformed.scope")
    assert net.captured == []


async def test_what_another_one_sealed_is_of_no_use(net: Network) -> None:
    """Mallory sends the ciphertext that she saw: it says inside who sealed it."""
    net.trust_issuer(RULE)
    net.user("ann", scopes=["docs:*"])
    token = PROVIDER.token(net.clock.now() / SECOND, sub="ann", client_id="local")
    async with net.serve(library):
        await net.exchange(token, scopes=["docs:read"])
    sealed = [c for c in net.captured if c.header.action == "Tokens" and c.header.kind == 1]
    body = json.loads(sealed[0].envelope.body)
    with pytest.raises(Denied) as caught:
        await net.attacker.request("service/directory", Tokens(**body))
    assert caught.value.code == "denied.exchange_client"


async def test_an_exchange_under_somebody_elses_authority_is_refused(net: Network) -> None:
    """The chain of the request itself is not what is exchanged: it has to be the asker's own."""
    alice = net.user("alice", scopes=["docs:read"])
    key = (await net.request("service/directory", ExchangeKey())).key
    body = {"do": "inspect", "from": alice._voice.identity.id, "reply_to": b64(bytes(31) + b"\x09"), "parameters": []}
    with pytest.raises(Denied) as caught:
        await alice.request("service/directory", Tokens(sealed=b64(seal(json.dumps(body).encode(), unb64(key)))))
    assert caught.value.code == "denied.exchange_standing"


async def test_the_exchange_started_anew_between_two_requests(net: Network) -> None:
    with pytest.raises(DirectoryRefused) as caught:
        await net.request("service/directory", Tokens(sealed=b64(seal(b"{}", SealKey(b"\x05" * 32).public))))
    assert caught.value.code == "directory.exchange_key" and caught.value.retryable


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"[" * 5000, b'{"do":"mint","from":"x","reply_to":"","parameters":[]}',
        b'{"do":"inspect","from":7,"reply_to":"","parameters":[]}',
        b'{"do":"inspect","from":"x","parameters":[[1,2]]}',
    ],
)  # fmt: skip
def test_what_is_sealed_has_one_form(body: bytes) -> None:
    key = SealKey(b"\x06" * 32)
    with pytest.raises(Malformed) as caught:
        read_sealed(b64(seal(body, key.public)), key)
    assert caught.value.code == "malformed.sealed"
    assert repr(key) == "SealKey()"
    with pytest.raises(InvalidKey):
        seal(b"x", bytes(32))


# ── once ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_used_token_stays_used_after_a_restart(tmp_path: Path) -> None:
    once = Once(tmp_path)
    assert await once.use(IDP, "jti:1", 100, now=0) and not await once.use(IDP, "jti:1", 100, now=0)
    assert await once.use("https://other.example", "jti:1", 100, now=0), "another issuer's jti is another"
    once.close()
    again = Once(tmp_path)
    assert not await again.use(IDP, "jti:1", 100, now=99)
    assert await again.use(IDP, "jti:2", 100, now=99)
    assert not await again.use(IDP, "jti:1", 100, now=100 + KEPT - 1), "expired, and a clock may be set back"
    assert await again.use(IDP, "jti:1", 100, now=100 + KEPT), "it is refused for its age, and need not be remembered"
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    again.close()


async def test_of_many_that_bring_a_token_at_once_one_is_answered(tmp_path: Path) -> None:
    """They share a write, and the token is used up in it; who asked and went takes its token with it all the same."""
    once = Once(tmp_path)
    uses = [asyncio.ensure_future(once.use(IDP, f"jti:{n % 5}", 100, now=0)) for n in range(50)]
    gone = asyncio.ensure_future(once.use(IDP, "gone", 100, now=0))
    await asyncio.sleep(0)
    gone.cancel()
    answers = await asyncio.gather(*uses)
    assert [n for n, new in enumerate(answers) if new] == [0, 1, 2, 3, 4]
    assert not await once.use(IDP, "gone", 100, now=0)
    await once.revoke("", "jti:9", 100, now=0)
    assert once.is_revoked("", "jti:9") and not once.is_revoked("", "jti:8")
    once.close()


async def test_a_token_that_cannot_be_put_down_is_not_exchanged(tmp_path: Path) -> None:
    once = Once(tmp_path)
    once._db.execute("DROP TABLE used")
    with pytest.raises(sqlite3.OperationalError):
        await once.use(IDP, "jti", 100, now=0)
    with pytest.raises(sqlite3.OperationalError):  # and nobody who asks afterwards waits for ever
        await once.use(IDP, "jti", 100, now=0)
    once.close()


async def test_an_issuer_that_is_ended_while_a_token_is_put_down_grants_nothing(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token was judged before the wait for the disk, and is judged again after it."""
    net.user("ann", scopes=["docs:*"])
    net.trust_issuer(RULE)
    use = Once.use

    async def slow(self: Once, issuer: str, jti: str, expires: int, *, now: int) -> bool:
        done = await use(self, issuer, jti, expires, now=now)
        ended = replace(net._core.trust.issuers[IDP], active=False)
        net._core.write(now, [("issuer", IDP, ended.encode())])
        return done

    monkeypatch.setattr(Once, "use", slow)
    token = PROVIDER.token(net.clock.now() / SECOND, sub="ann", client_id="local")
    with pytest.raises(Rejected) as caught:
        await net.exchange(token, scopes=["docs:read"])
    assert caught.value.code == "reject.token_issuer"


async def test_a_directory_that_starts_again_knows_which_tokens_were_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))
    folder = tmp_path / "directory"
    host = DirectoryHost(folder, listen="tcp://127.0.0.1:*", domain="agents.example")
    await host.open()
    everybody = [everyone("agents.example")]
    host.enrol("user/ann", may_talk_to=everybody, rights=["docs:*"])
    identity = host.enrol("app", may_talk_to=everybody, ceiling=["docs:*"])
    rule = issuer_of(IssuerRule.model_validate(RULE), "agents.example")
    host.core.write(host.clock.now(), [("issuer", IDP, rule.encode())])
    token = PROVIDER.token(host.clock.now() / SECOND, sub="ann")
    port = host.url.port
    async with await connect_bus(host.url, identity, listen=None, folder=tmp_path / "app") as bus:
        assert await bus.exchange(token, scopes=["docs:read"])
    await host.aclose()

    host = DirectoryHost(folder, listen=f"tcp://127.0.0.1:{port}")
    await host.open()
    async with await connect_bus(host.url, identity, listen=None, folder=tmp_path / "app") as bus:
        with pytest.raises(Rejected) as caught:
            await bus.exchange(token, scopes=["docs:read"])
        assert caught.value.code == "reject.token_replayed"
        assert await bus.exchange(PROVIDER.token(host.clock.now() / SECOND, sub="ann"), scopes=["docs:read"])
    await host.aclose()


async def test_a_caller_goes_on_when_the_exchange_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the exchange's key, which is another one after a restart, and its second token is not lost by that."""
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))
    folder, everybody = tmp_path / "directory", [everyone("agents.example")]
    host = DirectoryHost(folder, listen="tcp://127.0.0.1:*", domain="agents.example")
    await host.open()
    host.enrol("user/ann", may_talk_to=everybody, rights=["docs:*"])
    identity = host.enrol("app", may_talk_to=everybody, ceiling=["docs:*"])
    rule = issuer_of(IssuerRule.model_validate(RULE), "agents.example")
    host.core.write(host.clock.now(), [("issuer", IDP, rule.encode())])
    async with await connect_bus(host.url, identity, listen=None, folder=tmp_path / "app") as bus:
        port = host.url.port
        assert await bus.exchange(PROVIDER.token(host.clock.now() / SECOND, sub="ann"), scopes=["docs:read"])
        await host.aclose()
        host = DirectoryHost(folder, listen=f"tcp://127.0.0.1:{port}")
        await host.open()
        async with asyncio.timeout(30):  # nothing waits until a deadline of 60 s for the one that was before
            while True:
                try:
                    await bus.exchange(PROVIDER.token(host.clock.now() / SECOND, sub="ann"), scopes=["docs:read"])
                    break
                except AgentBusError as error:
                    assert error.retryable, error
        assert len(bus._exchanged.all()) == 2
    await host.aclose()


async def test_two_at_once_use_a_token_once(tmp_path: Path) -> None:
    """One atomic set-if-absent, in the file: it holds for two connections as well."""
    one, two = Once(tmp_path), Once(tmp_path)
    assert [await one.use(IDP, "a", 9, now=0), await two.use(IDP, "a", 9, now=0)] == [True, False]
    assert [await two.use(IDP, "b", 9, now=0), await one.use(IDP, "b", 9, now=0)] == [True, False]
    assert sorted(await asyncio.gather(one.use(IDP, "c", 9, now=0), two.use(IDP, "c", 9, now=0))) == [False, True]
    one.close()
    two.close()


def test_without_its_memory_of_used_tokens_the_exchange_does_not_start(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(LogError) as caught:
        Once(tmp_path)
    assert caught.value.code == "log.exchange_unreadable"


async def test_an_auditor_judges_token_and_consent_roots_offline(net: Network) -> None:
    """Years later: the directory's log alone says what the issuer might give and what she agreed to."""
    net.trust_issuer({**RULE, "consent_by": ["local"]})
    net.user("ann", scopes=["docs:*"])
    async with net.serve(library):
        for consent in (None, "May it?"):
            token = PROVIDER.token(net.clock.now() / SECOND, sub="ann", client_id="local")
            held = await net.exchange(token, scopes=["docs:read"], consent=consent)
            await net.acting(held).request("library", Read(name="x"))
        evidence = net.evidence("library")
        report = evidence.verify()
        assert report["AUTHORISED"].ok and report["KEY-VALID"].ok, report
        kinds = {m.authority.root_kind for m in evidence.messages(action="Read") if m.authority is not None}
        assert {"token", "consent"} <= kinds
