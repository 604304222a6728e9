"""Who answers in a run: routes, fallbacks, and the reason of each in the record."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest, ModelTable
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.routing import Router, RoutingConfig, Rule
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ModelError, ModelFailure
from journeyman.traces.storage.store import TraceStore

WORKER = Agent(name="worker", instructions="Work.", fallback=("big", "huge"))
CREW = Crew(name="one", orchestrator=None, workers=(WORKER,))
FAST = RoutingConfig(large="big", rules=(Rule(to="large", goal="compare"), Rule(to="small")))


def failing(kind: ModelFailure) -> ScriptedModel:
    return ScriptedModel([ModelError("no", kind=kind)] * 2)


def answering() -> ScriptedModel:
    return ScriptedModel(lambda request: write_answer(f"from {request.policy}"))


class Record:
    """What was recorded, read back."""

    def __init__(self, folder: Path) -> None:
        self._log = SpanLog(folder / "spans")
        self._store = TraceStore(folder / "spans", folder / "labels")
        self.tracer = Tracer(self._log)

    def asked(self) -> list[tuple[str, str | None]]:
        """Of each model call, in order: the policy that was asked, and why it was."""
        attributes = [chat.attributes for chat in self.chats()]
        return [(str(chat[a.REQUEST_MODEL]), cast(str | None, chat.get(a.POLICY_REASON))) for chat in attributes]

    def chats(self) -> list[SpanRecord]:
        chats = [span for span in self._store.spans() if span.attributes.get(a.OPERATION) == "chat"]
        return sorted(chats, key=lambda span: span.start_ns)

    def close(self) -> None:
        self._log.close()


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path)


@pytest.mark.parametrize("kind", ["unreachable", "timeout", "rate_limited", "server_error", "refused", "unusable"])
async def test_whatever_a_policy_fails_of_the_next_one_answers(record: Record, kind: ModelFailure) -> None:
    models = ModelTable(failing(kind), {"big": failing("timeout"), "huge": answering()})
    outcome = await Runtime(CREW, model=models, tracer=record.tracer).run("count")
    assert (outcome.status, outcome.answer) == ("ok", "from huge")
    assert record.asked() == [("base", None), ("big", f"base: {kind}"), ("huge", "big: timeout")]
    record.close()


async def test_a_time_limit_of_a_model_s_own_is_its_failure_and_not_the_agent_s(record: Record) -> None:
    def late(request: ModelRequest) -> str:
        raise TimeoutError("it took 9 s")

    models = ModelTable(ScriptedModel(late), {"big": ScriptedModel(late), "huge": answering()})
    outcome = await Runtime(CREW, model=models, tracer=record.tracer).run("count")
    assert (outcome.status, outcome.answer) == ("ok", "from huge")
    assert record.asked()[1:] == [("big", "base: timeout"), ("huge", "big: timeout")]
    alone = CREW.model_copy(update={"workers": (WORKER.model_copy(update={"fallback": ()}),)})
    outcome = await Runtime(alone, model=models).run("count")
    assert outcome.status == "failed"
    assert (outcome.error or "").endswith("base did not answer in time: it took 9 s")
    record.close()


async def test_where_all_fail_the_last_failure_is_the_run_s(record: Record) -> None:
    models = ModelTable(failing("timeout"), {"big": failing("timeout"), "huge": failing("refused")})
    outcome = await Runtime(CREW, model=models, tracer=record.tracer).run("count")
    assert (outcome.status, outcome.answer) == ("failed", "")
    assert [policy for policy, _ in record.asked()] == ["base", "big", "huge"]
    assert [chat.attributes[a.ERROR_TYPE] for chat in record.chats()] == ["timeout", "timeout", "refused"]
    record.close()


async def test_a_route_is_asked_first_and_its_reason_recorded(record: Record) -> None:
    runtime = Runtime(
        CREW,
        model=ModelTable(answering(), {"big": answering()}),
        tracer=record.tracer,
        policies=PolicyTable(agents={"worker": "worker@1"}),
        router=Router(FAST),
    )
    answers = [(await runtime.run(prompt)).answer for prompt in ("compare them", "count them")]
    assert answers == ["from big", "from worker@1"]
    assert record.asked() == [("big", "routed to large: rule 1"), ("worker@1", "routed to small: rule 2")]
    record.close()


async def test_only_the_base_model_s_own_policies_are_recorded_under_its_digest(record: Record) -> None:
    models = ModelTable(answering(), {"big": answering()})
    runtime = Runtime(CREW, model=models, tracer=record.tracer, router=Router(FAST), base_digest="b" * 64)
    for prompt in ("compare them", "count them"):
        await runtime.run(prompt)
    assert [chat.attributes.get(a.BASE_DIGEST) for chat in record.chats()] == [None, "b" * 64]
    record.close()


async def test_a_large_model_that_fails_leaves_the_work_to_the_agent_s_own(record: Record) -> None:
    models = ModelTable(answering(), {"big": failing("unreachable")})
    outcome = await Runtime(CREW, model=models, tracer=record.tracer, router=Router(FAST)).run("compare them")
    assert outcome.answer == "from base"
    assert record.asked()[1] == ("base", "big: unreachable")
    record.close()


class Silent(ScriptedModel):
    """Never answers."""

    async def complete(self, request: ModelRequest) -> ModelReply:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_policy_that_hangs_leaves_the_others_their_share_of_the_time(record: Record) -> None:
    patient = WORKER.model_copy(update={"limits": Limits(seconds=1.5)})
    models = ModelTable(Silent([]), {"big": Silent([]), "huge": answering()})
    crew = CREW.model_copy(update={"workers": (patient,)})
    outcome = await Runtime(crew, model=models, tracer=record.tracer).run("count")
    assert (outcome.status, outcome.answer) == ("ok", "from huge")
    assert record.asked() == [("base", None), ("big", "base: timeout"), ("huge", "big: timeout")]
    record.close()
