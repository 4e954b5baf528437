"""An agent whose answers depend on the time, on chance and on somebody else's server, and that can be replayed.

What is not determined by the message goes through the context, so it is on the record:

    agentbus run oracle:oracle                                 # serves; logs to AGENTBUS_DATA/oracle
    agentbus request oracle Question '{"about": "rain"}'
    agentbus log replay AGENTBUS_DATA/oracle oracle:oracle     # the same bytes again, with no network
"""

import asyncio
import os
import urllib.request

from pydantic import BaseModel

from agentbus import Agent, Context, Request

WEATHER = os.environ.get("WEATHER_URL", "https://wttr.in/?format=3")


class Prophecy(BaseModel):
    text: str


class Question(Request[Prophecy]):
    about: str


oracle = Agent("oracle", description="Knows the future of small things", replayable=True)  # keeps no state of its own


async def weather() -> str:
    """What somebody else's server says; blocking code runs in a thread."""

    def read() -> str:
        with urllib.request.urlopen(WEATHER, timeout=10) as answer:
            return str(answer.read(200).decode())

    return await asyncio.to_thread(read)


@oracle.handler
async def foretell(request: Question, ctx: Context) -> Prophecy:
    outside = await ctx.step("weather", weather, type=str)  # live: called and recorded; in a stub replay: never called
    omen = ctx.random().choice(["good", "bad", "unclear"])
    return Prophecy(text=f"{ctx.now():%H:%M:%S.%f}: {request.about}? The omen is {omen}, outside it is {outside}.")


if __name__ == "__main__":
    oracle.run()
