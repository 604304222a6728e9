"""Replies that are streamed, as whoever watches a run sees them: whole ones, and ones that break off."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest, ModelTable
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.run.events import Ended, Event, ReplyBroken, ReportFiled, Token
from journeyman.runtime.runtime import Runtime
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ModelError
from journeyman.traces.messages import read_reply

WORKER = Agent(name="worker", instructions="Work.", fallback=("spare",))
ANSWER = write_answer("four moons")


class Record:
    """A sink that keeps what was replied, by the span of the call."""

    def __init__(self) -> None:
        self.replies: dict[str, str] = {}

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        if (reply := read_reply(span.attributes)) is not None:
            self.replies[span.span_id] = reply.content


class Breaking(ScriptedModel):
    """Shows `shown`, and then fails, or hangs where there is nothing to raise."""

    def __init__(self, shown: str, error: Exception | None = None) -> None:
        super().__init__([])
        self._shown = shown
        self._error = error
        self.given_up = False

    async def stream_reply(
        self, request: ModelRequest, on_text: Callable[[str], None], on_restart: Callable[[], None]
    ) -> ModelReply:
        if self._shown:
            on_text(self._shown)
        if self._error is not None:
            raise self._error
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up = True
            raise
        raise AssertionError


class Restarting(ScriptedModel):
    """Begins its reply, and begins it again."""

    async def stream_reply(
        self, request: ModelRequest, on_text: Callable[[str], None], on_restart: Callable[[], None]
    ) -> ModelReply:
        on_text("three")
        on_restart()
        return await super().stream_reply(request, on_text, on_restart)


def crew(**fields: object) -> Crew:
    return Crew(name="one", orchestrator=None, workers=(WORKER.model_copy(update=fields),))


async def seen_of(model: ScriptedModel, record: Record | None = None, **fields: object) -> list[Event]:
    tracer = Tracer(record) if record else None
    models = ModelTable(model, {"spare": ScriptedModel(lambda request: ANSWER)})
    runtime = Runtime(crew(**fields), model=models, tracer=tracer)
    return [event async for event in runtime.stream("How many?", tokens=True)]


def shown_by(events: list[Event]) -> dict[str, str]:
    """What stays of each call for one who takes back what broke off."""
    shown: dict[str, str] = {}
    for event in events:
        if isinstance(event, Token):
            shown[event.call] = shown.get(event.call, "") + event.text
        if isinstance(event, ReplyBroken):
            del shown[event.call]
    return shown


@pytest.mark.parametrize("error", [ModelError("it broke off", kind="unreachable"), None])
async def test_what_was_shown_of_a_reply_that_a_fallback_replaces_is_taken_back(error: Exception | None) -> None:
    record = Record()
    events = await seen_of(Breaking("three", error), record, limits=Limits(seconds=2.0))
    told = [event.kind for event in events if isinstance(event, Token | ReplyBroken)]
    assert told[:3] == ["token", "broken", "token"]
    assert list(shown_by(events).values()) == [ANSWER]
    assert shown_by(events) == record.replies


async def test_a_reply_that_begins_again_is_the_same_call() -> None:
    record = Record()
    events = await seen_of(Restarting(lambda request: ANSWER), record)
    assert {event.call for event in events if isinstance(event, Token | ReplyBroken)} == record.replies.keys()
    assert shown_by(events) == record.replies


@pytest.mark.parametrize("error", [ModelError("it broke off"), RuntimeError("broken"), None])
async def test_what_was_shown_is_taken_back_before_the_work_fails(error: Exception | None) -> None:
    events = await seen_of(Breaking("three", error), fallback=(), limits=Limits(seconds=1.0))
    told = [event.kind for event in events if isinstance(event, Token | ReplyBroken | ReportFiled | Ended)]
    assert told == ["token", "broken", "report", "ended"]
    assert shown_by(events) == {}


async def test_a_failure_before_the_first_text_takes_nothing_back() -> None:
    events = await seen_of(Breaking("", ModelError("it is not there")))
    assert not [event for event in events if isinstance(event, ReplyBroken)]


async def test_one_who_goes_away_in_the_middle_of_a_reply_ends_it() -> None:
    model = Breaking("three")
    async with aclosing(Runtime(crew(fallback=()), model=model).stream("How many?", tokens=True)) as events:
        async for event in events:
            if isinstance(event, Token):
                break
    assert model.given_up
