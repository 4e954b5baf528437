"""A web application that acts for the user who is logged in, and can do nothing for anybody who has not allowed it.

It is the agent ``web``. Each user allows it once, for a year at most; what she signed is kept where ``web`` finds it::

    agentbus grant create web --scope docs:read --expires-in 86400 --as user/alice
    uvicorn web_app:app
    curl -u alice:wonderland 'http://127.0.0.1:8000/ask?question=why'
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from hello import Answer, Ask

from agentbus import AgentBusError, Bus, Denied, Rejected, Session

PASSWORDS = {"alice": "wonderland", "bob": "builder"}  # your own login stands here


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Bus.connect(identity="web", listen="") as bus:
        app.state.bus = bus
        yield


app = FastAPI(title="Ask", lifespan=lifespan)


def logged_in(login: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> str:
    if not secrets.compare_digest(PASSWORDS.get(login.username, "").encode(), login.password.encode()):
        raise HTTPException(401, "wrong name or password", {"WWW-Authenticate": "Basic"})
    return login.username


async def acting(request: Request, name: Annotated[str, Depends(logged_in)]) -> Session:
    """The bus, speaking for whoever is logged in: under a grant she signed that holds now."""
    bus: Bus = request.app.state.bus
    for authority in await bus.grants(user=name):
        return bus.acting(authority)
    raise HTTPException(403, f"{name} does not allow this application to act for her")


@app.get("/ask")
async def ask(question: str, user: Annotated[Session, Depends(acting)]) -> Answer:
    return await user.request("planner", Ask(question=question), delegate=["docs:read"])


@app.exception_handler(AgentBusError)
async def problem(request: Request, error: AgentBusError) -> JSONResponse:
    """RFC 9457, with the same code as in Python."""
    status = 403 if isinstance(error, Denied | Rejected) else 503 if error.retryable else 502
    body = {"title": error.message, "status": status, "code": error.code}
    return JSONResponse(body, status, media_type="application/problem+json")
