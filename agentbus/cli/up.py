"""``agentbus up``: a directory, in the foreground, until SIGTERM."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import click

from agentbus.cli.limits import raise_descriptors
from agentbus.cli.notify import notify
from agentbus.cli.output import announce, json_option, run_async
from agentbus.connect import BusUrl, bracketed, profile_path, save_profile
from agentbus.errors import ConfigError
from agentbus.home import home, key_path


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="Where the directory lives.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind.")
@click.option("--port", type=click.IntRange(0, 65535), default=7400, show_default=True, help="0: any free port.")
@click.option("--advertise", default=None, metavar="HOST[:PORT]", help="Where others find it, if not at --host.")
@click.option("--domain", default=None, help="The trust domain of a new directory (agents.local).")
@click.option(
    "--max-directory-age",
    type=click.IntRange(5, 300),
    default=30,
    show_default=True,
    help="Of a new directory: seconds after which nodes that no longer hear it refuse new work.",
)
@json_option
def up(
    data: Path | None, host: str, port: int, advertise: str | None, domain: str | None, max_directory_age: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Run the directory. On an empty folder: make its keys, the trust domain, user/operator and the profile."""
    where = None if advertise is None else f"tcp://{_with_port(advertise)}"
    run_async(_up(data or home() / "directory", host, port, where, domain, max_directory_age, as_json))


async def _up(
    data: Path, address: str, port: int, advertise: str | None, domain: str | None, max_age: int, as_json: bool
) -> None:
    import asyncio

    from agentbus.host import DirectoryHost, make_operator

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    raise_descriptors()
    listen = f"tcp://{bracketed(address)}:{port or '*'}"
    host = DirectoryHost(data, listen=listen, domain=domain, advertise=advertise, max_age=max_age)
    path = key_path("user/operator")
    if not (data / "keys").exists() and not (data / "directory").exists() and path.exists():
        raise ConfigError("config.operator", f"{path} is another directory's; set AGENTBUS_HOME to another folder")
    await host.open()
    try:
        make_operator(host.core, path, now=host.clock.now())
        if host.created or _is_ours(host.url):
            save_profile(host.url)
        url = str(host.url)
        announce(json.dumps({"bus": url, "domain": host.core.domain}) if as_json else f"bus {url}")
        if not as_json:
            announce(f"trust domain {host.core.domain}; data {data}; profile {profile_path()}; stop with Ctrl-C")
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
    finally:
        await host.aclose()


def _with_port(address: str) -> str:
    """``HOST``, ``HOST:PORT``, an IPv6 address or ``[ADDRESS]:PORT``; without a port that of --port."""
    if address.endswith("]") or (address.count(":") != 1 and not address.startswith("[")):
        return f"{bracketed(address)}:*"
    return address


def _is_ours(url: BusUrl) -> bool:
    """Whether the profile names this directory, perhaps at another address, or none at all."""
    try:
        known = BusUrl.parse(json.loads(profile_path().read_text("utf-8"))["url"])
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False  # whoever wrote it may still want to see it
    return (known.root, known.curve_key) == (url.root, url.curve_key)
