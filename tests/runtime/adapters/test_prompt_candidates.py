"""Prompt candidates: a prompt under the name of an adapter, on the weights of another policy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew, Example
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer
from journeyman.runtime.adapters.adapter import PROMPT, RECORD, load_adapter
from journeyman.runtime.adapters.current import CurrentPolicies
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.prompts import read_prompts, weights_of
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.run_store import RunStore
from journeyman.runtime.workspace import Workspace
from journeyman.traces.assemble import assemble, refusal
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import AdapterError, ConfigError
from journeyman.traces.trace import Trace, Turn

MakeAdapter = Callable[..., Path]
MakePrompt = Callable[..., Path]

EXAMPLE = Example(user="2 + 2", assistant=write_answer("4"))
WORKER = Agent(name="worker", instructions="Answer.", examples=(Example(user="crew's", assistant="own"),))
CREW = Crew(name="sums", orchestrator=None, workers=(WORKER,))


class Spans:
    def __init__(self) -> None:
        self.kept: list[SpanRecord] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.kept.append(span)

    @property
    def trace(self) -> Trace:
        return assemble(self.kept)


def serve(workspace: Workspace, policy: str) -> None:
    journal = Journal(workspace.journal)
    digest = load_adapter(workspace.adapters / policy).digest
    journal.append("worker", "promote", policy, expected=journal.in_service("worker"), digest=digest, reason="test")


def answers() -> ScriptedModel:
    return ScriptedModel(lambda request: write_answer("4"))


async def turn_of(workspace: Workspace, model: ScriptedModel) -> tuple[Turn, Trace]:
    spans = Spans()
    async with Runtime(CREW, model=model, tracer=Tracer(spans), policies=CurrentPolicies(workspace)) as runtime:
        await runtime.run("3 + 1")
    return spans.trace.turns[0], spans.trace


async def test_a_prompt_in_service_is_shown_whole_and_its_weights_are_asked(
    workspace: Workspace, make_prompt: MakePrompt
) -> None:
    make_prompt("worker@1", "Add the numbers.", examples=(EXAMPLE,))
    serve(workspace, "worker@1")
    model = answers()
    turn, _ = await turn_of(workspace, model)
    asked = model.requests[0]
    assert asked.policy == "base"
    assert [message.content for message in asked.messages] == [
        "Add the numbers.",
        *(EXAMPLE.user, EXAMPLE.assistant),
        "3 + 1",
    ]
    assert (turn.policy, turn.weights, turn.served_by) == ("worker@1", "base", "base")
    assert turn.adapter_digest == load_adapter(workspace.adapters / "worker@1").digest


async def test_what_its_weights_said_can_be_learned_from(workspace: Workspace, make_prompt: MakePrompt) -> None:
    make_prompt("worker@1", "Add the numbers.")
    serve(workspace, "worker@1")
    turn, trace = await turn_of(workspace, answers())
    sampled = turn.model_copy(update={"prompt_token_ids": (1, 2), "token_ids": (3,), "logprobs": (-0.5,)})
    assert refusal(sampled, trace.trajectories[0]) is None
    other = sampled.model_copy(update={"served_by": "worker@7"})
    assert refusal(other, trace.trajectories[0]) == "served by another policy"


async def test_it_can_stand_on_the_weights_of_an_adapter(
    workspace: Workspace, make_adapter: MakeAdapter, make_prompt: MakePrompt
) -> None:
    make_adapter("worker@1")
    make_prompt("worker@2", "Add the numbers.", examples=(EXAMPLE,), weights="worker@1")
    serve(workspace, "worker@2")
    model = answers()
    turn, _ = await turn_of(workspace, model)
    assert model.requests[0].policy == "worker@1"
    assert len(model.requests[0].messages) == 4
    assert (turn.policy, turn.weights) == ("worker@2", "worker@1")
    assert weights_of(workspace.adapters, "worker@2") == "worker@1"


async def test_a_run_in_flight_keeps_its_prompt(tmp_path: Path, workspace: Workspace, make_prompt: MakePrompt) -> None:
    make_prompt("worker@1", "Add the numbers.")
    make_prompt("worker@2", "Add them.")
    serve(workspace, "worker@1")

    class Changing(ScriptedModel):
        async def complete(self, request: ModelRequest) -> ModelReply:
            reply = await super().complete(request)
            if len(self.requests) == 1:
                serve(workspace, "worker@2")
            return reply

    model = Changing(["not JSON", write_answer("4"), write_answer("4")])
    async with Runtime(CREW, model=model, policies=CurrentPolicies(workspace)) as runtime:
        await runtime.run("3 + 1")
        await runtime.run("1 + 3")
    shown = [request.messages[0].content for request in model.requests]
    assert shown == ["Add the numbers.", "Add the numbers.", "Add them."]


async def test_a_kept_run_has_its_prompt_with_it(tmp_path: Path, workspace: Workspace, make_prompt: MakePrompt) -> None:
    make_prompt("worker@1", "Add the numbers.")
    serve(workspace, "worker@1")
    runs = RunStore(tmp_path / "runs.db")
    async with Runtime(CREW, model=answers(), policies=CurrentPolicies(workspace), runs=runs) as runtime:
        await runtime.run("3 + 1", run_id="r1")
        known = await runtime.find("r1")
    assert known is not None
    assert known.policies.prompts["worker@1"].instructions == "Add the numbers."


def test_one_that_stands_in_for_another_policy_is_only_its_weights(
    workspace: Workspace, make_adapter: MakeAdapter, make_prompt: MakePrompt
) -> None:
    make_adapter("worker@1")
    make_prompt("worker@2", "Add the numbers.", weights="worker@1")
    prompts = read_prompts(workspace.adapters, ["worker@2"])
    table = PolicyTable(fallbacks={"worker": ("worker@2",)}, prompts=prompts)
    assert table.chain(WORKER) == ("base", "worker@1")
    assert table.digest("worker@1") == load_adapter(workspace.adapters / "worker@1").digest


def test_one_that_was_altered_never_answers(workspace: Workspace, make_prompt: MakePrompt) -> None:
    folder = make_prompt("worker@1", "Add the numbers.")
    serve(workspace, "worker@1")
    words = json.loads((folder / PROMPT).read_text())
    (folder / PROMPT).write_text(json.dumps({**words, "instructions": "Subtract them."}))
    with pytest.raises(AdapterError, match="altered since training"):
        CurrentPolicies(workspace)()


def test_its_weights_must_be_those_that_it_was_made_on(
    workspace: Workspace, make_adapter: MakeAdapter, make_prompt: MakePrompt
) -> None:
    weights = make_adapter("worker@1")
    folder = make_prompt("worker@2", "Add the numbers.", weights="worker@1")
    load_adapter(folder)
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, "start": "base", "start_digest": None}))
    with pytest.raises(AdapterError, match="do not belong together"):
        load_adapter(folder)
    (folder / RECORD).write_text(json.dumps(record))
    (weights / "adapter_config.json").write_text((weights / "adapter_config.json").read_text() + "\n")
    with pytest.raises(AdapterError, match="altered since training"):
        load_adapter(folder)
    for file in weights.iterdir():
        file.unlink()
    weights.rmdir()
    with pytest.raises(AdapterError, match="there is no adapter worker@1"):
        load_adapter(folder)


async def test_a_replay_is_in_the_same_prompt(workspace: Workspace, make_prompt: MakePrompt, tmp_path: Path) -> None:
    from journeyman.runtime.replay.replay import Replay

    make_prompt("worker@1", "Add the numbers.", examples=(EXAMPLE,))
    serve(workspace, "worker@1")
    _, trace = await turn_of(workspace, answers())
    with pytest.raises(ConfigError, match="made in the prompt of worker@1, which isn't here"):
        Replay(trace, CREW)
    replay = Replay(trace, CREW, prompts=read_prompts(workspace.adapters, ["worker@1"]))
    async with Runtime(replay.crew, model=replay.models, policies=replay.policies, memory=replay.memory) as runtime:
        outcome = await runtime.run(replay.task, origin=replay.origin)
    assert (outcome.status, outcome.answer) == ("ok", "4")


def test_the_record_says_it_in_segments_too(workspace: Workspace, make_prompt: MakePrompt) -> None:
    import asyncio

    make_prompt("worker@1", "Add the numbers.")
    serve(workspace, "worker@1")
    log = SpanLog(workspace.spans)

    async def run() -> None:
        async with Runtime(CREW, model=answers(), tracer=Tracer(log), policies=CurrentPolicies(workspace)) as runtime:
            await runtime.run("3 + 1")

    asyncio.run(run())
    log.close()
    rows = list(workspace.store.turns(("policy", "served_by", "weights", "refusal")))
    assert rows == [("worker@1", "base", "base", "no token ids")]
