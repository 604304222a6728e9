"""A crew in a web app. It needs `pip install fastapi uvicorn` and a running server (`journeyman server start`).

JOURNEYMAN_CREW=planets/crew.toml uvicorn fastapi_app:app

POST /tasks waits for the outcome, POST /tasks/events streams the run as server-sent events (a client that leaves
stops it), GET /runs/{id} tells how a run stands, POST /runs/{id}/answers goes on with one that asked a person, and
POST /runs/{id}/answers/events streams that.
"""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from journeyman.runtime import ConfigError, Consent, Event, JourneymanError, Outcome, RunRecord, Runtime, Task

Answers = dict[str, str | Consent]


class NewTask(BaseModel):
    prompt: str
    session: str | None = None
    user: str | None = None


def create_app(open_runtime: Callable[[], Runtime]) -> FastAPI:
    """One runtime for the life of the app: its connections, its run store and its limit on calls are shared."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_runtime() as runtime:
            app.state.runtime = runtime
            yield

    app = FastAPI(lifespan=lifespan)
    app.post("/tasks")(run_task)
    app.post("/tasks/events")(stream_task)
    app.get("/runs/{run_id}")(show_run)
    app.post("/runs/{run_id}/answers")(answer_run)
    app.post("/runs/{run_id}/answers/events")(stream_answered)
    return app


def the_runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


TheRuntime = Annotated[Runtime, Depends(the_runtime)]


async def run_task(new: NewTask, runtime: TheRuntime) -> Outcome:
    try:
        return await runtime.run(_task(new))
    except ConfigError as error:
        raise HTTPException(422, str(error)) from None


async def stream_task(new: NewTask, runtime: TheRuntime) -> StreamingResponse:
    return _streamed(lambda: runtime.stream(_task(new), tokens=True))


async def show_run(run_id: str, runtime: TheRuntime) -> RunRecord:
    record = await runtime.find(run_id)
    if record is None:
        raise HTTPException(404, f"there is no run {run_id}")
    return record


async def answer_run(run_id: str, answers: Answers, runtime: TheRuntime) -> Outcome:
    """`answers` by question id: a text, or `{"approved": true}`."""
    try:
        return await runtime.run(run_id=run_id, answers=answers)
    except JourneymanError as error:
        raise HTTPException(409, str(error)) from None


async def stream_answered(run_id: str, answers: Answers, runtime: TheRuntime) -> StreamingResponse:
    return _streamed(lambda: runtime.stream(run_id=run_id, answers=answers, tokens=True))


def _streamed(stream: Callable[[], AsyncGenerator[Event, None]]) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        try:
            async with aclosing(stream()) as run:
                async for event in run:
                    yield f"event: {event.kind}\ndata: {event.model_dump_json()}\n\n"
        except JourneymanError as error:  # The status was sent before the first event.
            yield f"event: error\ndata: {json.dumps({'error': str(error)})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def _task(new: NewTask) -> Task:
    return Task(id=uuid4().hex[:12], **new.model_dump())


app = create_app(lambda: Runtime.open(os.environ.get("JOURNEYMAN_CREW", "crew.toml")))
