"""A person's correction becomes a row of the agent that it corrects, and what was corrected is none any more."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from journeyman.agents.agent import Agent, Crew, Example
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.prompt import prompt_form
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.cli import build
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.tools.tool import Tool
from journeyman.traces.capture.content import ContentPolicy
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.labels import Label
from journeyman.traces.trace import Origin, Outcome, Purpose, Task, Trace
from journeyman.training.data.mine import Mined, mine_sft
from journeyman.training.data.samples import SFTSample, read_samples
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.data.tasks.heldout import NOTHING, HeldOut

ANY = MineConfig()
EXAMPLES = (Example(user="1 + 1?", assistant=write_answer("2")),)
UNLIKE = "an edit that isn't in the form of the agent's replies"
EDIT = "edit"


class Answers(ScriptedModel):
    """Plans one assignment for each of `workers`, looks, and gives an answer that is wrong."""

    def __init__(self, workers: tuple[str, ...] = ("worker",), wrong: str | list[str] = "5") -> None:
        plan = json.dumps({"assignments": [{"worker": worker, "goal": "Add 2 + 2."} for worker in workers]})
        called = (write_call("look", {}), write_answer(wrong))

        def reply(request: ModelRequest) -> str:
            if "Plan" in request.messages[0].content:
                return plan
            return called[request.messages[-1].content.startswith("look: ")]

        super().__init__(reply)

    async def complete(self, request: ModelRequest) -> ModelReply:
        reply = await super().complete(request)
        ids = {"prompt_token_ids": (1,), "token_ids": (2,), "logprobs": (-0.5,)}
        return reply.model_copy(update=ids)


class Native(Answers):
    async def complete(self, request: ModelRequest) -> ModelReply:
        return (await super().complete(request)).model_copy(update={"content": "It is 5."})


def crew(*names: str, examples: tuple[Example, ...] = (), planned: bool = True, **more: Any) -> Crew:
    tools = {"look": Tool(lambda: "4", name="look", description="Looks.")}
    workers = tuple(
        Agent(name=name, instructions="Add.", tools=("look",), examples=examples, **more)
        for name in names or ("worker",)
    )
    boss = Agent(name="boss", instructions="Plan.") if planned else None
    return Crew(name="sums", orchestrator=boss, workers=workers, tools=tools)


class Record:
    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.store = workspace.store

    async def run(
        self,
        crew: Crew,
        model: ScriptedModel | None = None,
        *,
        policy: str = "any@1",
        purpose: Purpose = "service",
        content: ContentPolicy | None = None,
        prompt: str = "2 + 2?",
    ) -> Trace:
        log = SpanLog(self.workspace.create().spans)
        agents = {agent.name: policy for agent in crew.agents}
        table = PolicyTable(agents=agents, digests={policy: "d"})
        tracer = Tracer(log) if content is None else Tracer(log, content=content)
        runtime = Runtime(crew, model=model or Answers(crew.worker_names), tracer=tracer, policies=table)
        outcome: Outcome = await runtime.run(Task(id="t", prompt=prompt), origin=Origin(purpose=purpose))
        log.close()
        return self.store.get(outcome.trace_id)

    def edit(self, trace: Trace, text: str | float, span: str | None = None, **more: Any) -> None:
        stated = {"source": "ann", "source_type": "human"} | more
        self.store.label(Label(trace_id=trace.trace_id, span_id=span, name=EDIT, value=text, **stated))

    def mine(self, agent: str = "worker", config: MineConfig = ANY, held_out: HeldOut = NOTHING) -> Mined:
        return mine_sft(Source(self.store, agent, config, held_out=held_out))


def turns(trace: Trace, agent: str = "worker") -> list[str]:
    return [turn.span_id for turn in trace.turns if turn.agent == agent]


@pytest.fixture
def record(workspace: Workspace) -> Record:
    return Record(workspace)


async def test_a_correction_takes_the_place_of_the_reply_that_it_corrects(record: Record) -> None:
    trace = await record.run(crew())
    _, answer = turns(trace)
    record.edit(trace, write_answer("4"), answer)
    mined = record.mine()
    assert [row.completion for row in mined.samples] == [write_call("look", {}), write_answer("4")]
    row = mined.samples[-1]
    assert (row.policy, row.edited_by, row.span_ids, row.token_ids) == ("person", "ann", (answer,), None)
    assert mined.samples[0].edited_by is None and mined.samples[0].token_ids == (2,)
    assert (mined.edited.turns, mined.edited.refused, mined.refused) == (1, {}, {})


async def test_a_correction_is_in_the_prompt_that_the_agent_is_shown(record: Record) -> None:
    """Though the policy that was corrected had seen examples, which a reply that was sampled is refused for."""
    trace = await record.run(crew(examples=EXAMPLES), policy="base")
    record.edit(trace, write_answer("4"), turns(trace)[-1])
    mined = record.mine()
    (row,) = mined.samples
    worker = crew().workers[0]
    assert [message.role for message in row.messages] == ["system", "user", "assistant", "user"]
    assert row.prompt_form == prompt_form(worker, crew()).digest
    assert mined.refused == {"shown examples that an adapter isn't shown": 1}


async def test_an_edited_answer_credits_the_agent_that_gave_it(record: Record) -> None:
    trace = await record.run(crew())
    record.edit(trace, "4")
    assert [row.completion for row in record.mine().samples][-1] == write_answer("4")
    boss = record.mine("boss")
    assert (boss.edited.turns, boss.edited.refused, boss.turns) == (0, {}, 1)


async def test_an_edited_answer_of_an_agent_that_works_alone(record: Record) -> None:
    trace = await record.run(crew(planned=False, tool_calls="native"), Native())
    record.edit(trace, "It is 4.")
    mined = record.mine()
    assert ([row.completion for row in mined.samples], mined.edited.turns) == (["It is 4."], 1)


async def test_an_answer_that_several_agents_gave_is_refused_for_each(record: Record) -> None:
    trace = await record.run(crew("one", "two"))
    record.edit(trace, "4")
    reason = "an edit of an answer that can't be told to be one agent's"
    for agent in ("one", "two", "boss"):
        mined = record.mine(agent)
        assert (mined.edited.turns, mined.edited.refused, mined.refused) == (0, {reason: 1}, {})


async def test_an_answer_of_several_values_needs_an_edit_of_its_call(record: Record) -> None:
    trace = await record.run(crew(output="values"), Answers(wrong=["5", "6"]))
    record.edit(trace, "4, 5")
    assert record.mine().edited.refused == {"an edited answer of several values: edit the span of its model call": 1}
    record.edit(trace, write_answer(["4", "5"]), version=2)
    assert record.mine().samples[-1].completion == write_answer(["4", "5"])


async def test_an_edited_plan_is_a_plan(record: Record) -> None:
    trace = await record.run(crew())
    better = json.dumps({"assignments": [{"worker": "worker", "goal": "Look, then add."}]})
    for text in ('{"assignments": [{"worker": "worker"}]}', write_answer("4"), "Ask the worker."):
        record.edit(trace, text, turns(trace, "boss")[0])
        mined = record.mine("boss")
        assert (mined.samples, mined.edited.refused) == ((), {UNLIKE: 1})
    record.edit(trace, better, turns(trace, "boss")[0], version=2)
    (row,) = record.mine("boss").samples
    assert row.completion == better


@pytest.mark.parametrize(
    "text",
    [
        *("4", '{"answer": "4"', '{"answer": 4}', '{"answer": ["4"]}', '{"answer": "4", "look": {}}'),
        *('{"seek": {}}', '{"look": 1}', '[{"look": {}}]'),
    ],
)
async def test_an_edit_must_be_in_the_form_of_an_agent_that_writes_json(record: Record, text: str) -> None:
    trace = await record.run(crew())
    record.edit(trace, text, turns(trace)[-1])
    mined = record.mine()
    assert (mined.edited.turns, mined.edited.refused) == (0, {UNLIKE: 1})
    assert [row.completion for row in mined.samples] == [write_call("look", {})], "the old answer is still wrong"


async def test_a_call_may_be_corrected_into_another_one(record: Record) -> None:
    trace = await record.run(crew())
    record.edit(trace, write_call("look", {"at": "4"}), turns(trace)[0])
    assert record.mine().samples[0].completion == write_call("look", {"at": "4"})


async def test_a_call_written_as_text_is_no_reply_in_the_models_own_template(record: Record) -> None:
    trace = await record.run(crew(planned=False, tool_calls="native"), Native())
    record.edit(trace, '{"name": "look", "arguments": {}}', turns(trace)[-1])
    assert record.mine().edited.refused == {UNLIKE: 1}


async def test_the_newest_of_several_edits_counts_and_the_others_are_shown(record: Record) -> None:
    trace = await record.run(crew())
    answer = turns(trace)[-1]
    record.edit(trace, write_answer("3"), answer, at_ns=9)
    record.edit(trace, write_answer("4"), answer, version=2, at_ns=3)
    record.edit(trace, write_answer("four"), answer, source="bob", at_ns=2)
    record.edit(trace, write_answer("4"), answer, source="eve", at_ns=1)
    mined = record.mine()
    assert (mined.samples[-1].completion, mined.samples[-1].edited_by) == (write_answer("4"), "ann")
    told = [(one.counts.value, one.superseded.source, one.superseded.value) for one in mined.edited.superseded]
    assert told == [(write_answer("4"), "ann", write_answer("3")), (write_answer("4"), "bob", write_answer("four"))]


async def test_an_edit_of_the_answer_and_of_its_call_are_of_one_reply(record: Record) -> None:
    trace = await record.run(crew())
    record.edit(trace, write_answer("4"), turns(trace)[-1], at_ns=1)
    record.edit(trace, "four", at_ns=2)
    mined = record.mine()
    assert (mined.samples[-1].completion, mined.edited.turns) == (write_answer("four"), 1)
    assert [one.superseded.value for one in mined.edited.superseded] == [write_answer("4")]


async def test_an_edit_of_no_model_call_is_counted(record: Record) -> None:
    trace = await record.run(crew())
    tool = next(turn for turn in trace.turns if turn.tool_results).tool_results[0].span_id
    record.edit(trace, "4", tool)
    record.edit(trace, "4", "f" * 16)
    mined = record.mine()
    assert mined.edited.refused == {"an edit of a span that isn't a model call": 1, "an edit of a span that is gone": 1}
    assert (mined.turns, mined.refused) == (2, {}), "nobody corrected the replies"


@pytest.mark.parametrize(("text", "reason"), [(" ", "an empty edit"), (4.0, "an edit that isn't text")])
async def test_an_edit_that_says_nothing_is_counted(record: Record, text: str | float, reason: str) -> None:
    trace = await record.run(crew())
    record.edit(trace, text, turns(trace)[-1])
    assert record.mine().edited.refused == {reason: 1}


async def test_only_people_correct(record: Record) -> None:
    trace = await record.run(crew())
    record.edit(trace, write_answer("4"), turns(trace)[-1], source_type="llm_judge")
    mined = record.mine()
    assert (mined.edited.refused, mined.turns) == ({"an edit that no person made": 1}, 2)


async def test_a_correction_counts_however_the_work_ended_and_scored(record: Record) -> None:
    trace = await record.run(crew(), Answers(wrong=["not", "text"]))
    assert trace.outcome is not None and trace.outcome.status != "ok"
    record.store.label(Label(trace_id=trace.trace_id, name="score", source="test", value=0.0))
    record.edit(trace, write_answer("4"), turns(trace)[-1])
    mined = record.mine(config=MineConfig(min_score=1.0))
    assert [row.completion for row in mined.samples] == [write_answer("4")]


@pytest.mark.parametrize("purpose", ["evaluation", "gate", "replay", "shadow"])
async def test_a_run_that_measures_is_not_learned_from_in_this_way(record: Record, purpose: Purpose) -> None:
    trace = await record.run(crew(), purpose=purpose)
    record.edit(trace, write_answer("4"), turns(trace)[-1])
    mined = record.mine()
    assert (mined.samples, mined.edited.refused) == ((), {f"made for {purpose}": 1})


async def test_a_held_out_task_is_not_learned_from_in_this_way(record: Record) -> None:
    prompt = "how many apples are two apples and two more apples?"
    trace = await record.run(crew(), prompt=prompt)
    record.edit(trace, "4")
    mined = record.mine(held_out=HeldOut({"gate": [Task(id="g", prompt=prompt)]}, 0.7))
    assert (mined.samples, mined.edited.refused) == ((), {"a task of gate": 1})


async def test_a_prompt_that_was_not_kept_can_teach_nothing(record: Record) -> None:
    for content in ("digest", "off"):
        trace = await record.run(crew(), content=ContentPolicy(content))
        record.edit(trace, write_answer("4"), turns(trace)[-1])
    assert record.mine().edited.refused == {"content not recorded": 2}
    trace = await record.run(crew(), content=ContentPolicy("full", ["email"]), prompt="What is ann@example.org?")
    record.edit(trace, write_answer("4"), turns(trace, "boss")[0])
    assert record.mine("boss").edited.refused == {"redacted": 1}


async def test_an_edit_is_redacted_like_what_is_recorded(record: Record) -> None:
    trace = await record.run(crew())
    record.workspace.config_file.write_text('[traces]\nredact = ["email"]\n')
    stated = Label(trace_id=trace.trace_id, name=EDIT, source="ann", source_type="human", value="ask bob@example.org")
    with Recording(Workspace(record.workspace.root)) as recording:
        recording.label(stated)
    assert "bob@example.org" not in record.mine().samples[-1].completion


async def test_policies_that_are_asked_for(record: Record) -> None:
    trace = await record.run(crew())
    record.edit(trace, write_answer("4"), turns(trace)[-1])
    by_person = record.mine(config=MineConfig(policy=("person",)))
    assert ([row.policy for row in by_person.samples], by_person.refused) == (["person"], {})
    own = record.mine(config=MineConfig(policy=("any@1",)))
    assert ([row.policy for row in own.samples], own.refused) == (["any@1"], {"corrected by a person": 1})
    assert own.edited.turns == 0


async def test_the_command_counts_corrections_apart(record: Record, tmp_path: Path) -> None:
    trace = await record.run(crew())
    answer, call = turns(trace)[::-1]
    record.edit(trace, write_answer("[b]3"), answer, at_ns=1)
    record.edit(trace, write_answer("4"), answer, at_ns=2, source="bob")
    record.edit(trace, "", call)
    asked = ["mine", "--agent", "worker", "-C", str(record.workspace.root), "--out", str(tmp_path / "rows.jsonl")]
    printed = json.loads(CliRunner().invoke(build(), [*asked, "--json"]).stdout)
    assert (printed["rows"], printed["edits"]["turns"], printed["edits"]["refused"]) == (1, 1, {"an empty edit": 1})
    (one,) = printed["edits"]["superseded"]
    assert (one["counts"]["value"], one["superseded"]["value"]) == (write_answer("4"), write_answer("[b]3"))
    shown = CliRunner().invoke(build(), asked).stdout
    assert "1 of them corrected by a person; 1 edits refused, 1 superseded" in shown
    assert "[b]3" in shown and "bob" in shown and "an empty edit" in shown
    (row,) = read_samples(tmp_path / "rows.jsonl", SFTSample)
    assert row.edited_by == "bob"


def test_an_imported_conversation_can_be_corrected(record: Record, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "5"}]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(chat) + "\n")
    workspace = ["-C", str(record.workspace.root)]
    CliRunner().invoke(build(), ["traces", "import", str(tmp_path / "chats.jsonl"), "--agent", "clerk", *workspace])
    (trace,) = record.store.traces()
    said = CliRunner().invoke(build(), ["label", trace.trace_id, "--edit", "It is 4.", *workspace])
    assert said.exit_code == 0
    mined = record.mine("clerk")
    assert [(row.completion, row.policy) for row in mined.samples] == [("It is 4.", "person")]
