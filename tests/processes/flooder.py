"""An enrolled peer without manners: ``flooder.py valid|forged NAME VICTIM [CLAIMED]``. It seals frames, pours them out
as fast as they go, for half a minute at most or until it is killed, and prints a line once the first are out.

``valid``: every frame is good, and asks for something. ``forged``: every frame claims to be from CLAIMED.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from agentbus import Identity
from agentbus.testing.raw import RawPeer, Sealed, sender_is
from tests.processes.worker import Work

AT_ONCE = 256
SECONDS = 30.0


async def main(mode: str, name: str, victim: str, claimed: str = "") -> None:
    edit = sender_is(claimed) if mode == "forged" else None
    until = time.monotonic() + SECONDS
    poured = 0
    while time.monotonic() < until:
        peer = await RawPeer.connect(Identity.load(name), folder=Path(mkdtemp()) / "log")
        try:
            while time.monotonic() < until:
                sealed = [await peer.seal(victim, Work(), edit=edit) for _ in range(AT_ONCE)]
                poured += await pour(sealed)
                if poured <= AT_ONCE:
                    print("pouring", flush=True)
        except Exception:  # it was dropped, and comes back as soon as it may
            await asyncio.sleep(0.5)
        finally:
            await peer.aclose()


async def pour(frames: list[Sealed]) -> int:
    for number, sealed in enumerate(frames):
        for _ in range(1000):
            if sealed.connection.offer(sealed.frame):
                break
            await asyncio.sleep(0.001)
        else:
            raise ConnectionError
        if number % 32 == 0:
            await asyncio.sleep(0)
    return len(frames)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
