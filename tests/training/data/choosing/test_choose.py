"""Choosing among the rows of a record: what is left out is counted, and nothing that is held out gets in."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.content import ContentPolicy
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import AttributeValue, Tracer
from journeyman.traces.labels import Label
from journeyman.traces.trace import Task
from journeyman.training.data.choosing.caps import Cap
from journeyman.training.data.choosing.choose import ChooseConfig, Choosing, Chosen
from journeyman.training.data.mine import mine_to_file
from journeyman.training.data.samples import read_samples
from journeyman.training.data.sft import SFTMining
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.data.tasks.heldout import NOTHING, HeldOut

Attributes = dict[str, AttributeValue | None]


class Record:
    """Recorded runs of one worker, each of one turn, which a server of ours sampled."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.store = workspace.store
        self._tracer = Tracer(SpanLog(workspace.spans), content=ContentPolicy(redact=()))

    def run(
        self,
        prompt: str,
        reply: str = '{"answer": "2"}',
        *,
        asked: str | None = None,
        score: float | None = None,
        status: str = "ok",
        purpose: str = "service",
        crew: str = "crew",
        task_set: str | None = None,
        policy: str = "base",
        **told: str,
    ) -> str:
        of_whom = {getattr(a, name): value for name, value in told.items()}
        whole: Attributes = {a.OPERATION: "invoke_workflow", a.STATUS: status, a.PURPOSE: purpose, a.TASK_SET: task_set}
        whole |= {a.WORKFLOW_NAME: crew, a.TASK: Task(id=prompt, prompt=prompt).model_dump_json(), **of_whom}
        worker: Attributes = {a.OPERATION: "invoke_agent", a.AGENT_NAME: "worker", a.STATUS: status, **of_whom}
        chat = _chat(prompt if asked is None else asked, reply, policy) | of_whom
        with (
            self._tracer.span("invoke_workflow", parent=None, attributes=whole) as root,
            self._tracer.span("invoke_agent worker", parent=root, attributes=worker) as span,
            self._tracer.span("chat", parent=span, kind="client", attributes=chat),
        ):
            pass
        if score is not None:
            self.store.label(Label(trace_id=root.trace_id, name="score", source="test", value=score))
        return root.trace_id

    def mined(
        self, config: ChooseConfig | None = None, held_out: HeldOut = NOTHING, asked: MineConfig | None = None
    ) -> tuple[list[Any], Chosen]:
        source = Source(self.store, "worker", asked or MineConfig(), held_out=held_out)
        choosing = Choosing(source, config)
        dataset = mine_to_file(SFTMining(source), self.workspace.datasets, lambda digest: f"{digest}.jsonl", choosing)
        return ([] if dataset is None else list(read_samples(dataset.path))), choosing.chosen


def _chat(asked: str, reply: str, policy: str) -> Attributes:
    def texts(role: str, text: str) -> str:
        return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}], "finish_reason": "stop"}])

    return {
        a.OPERATION: "chat",
        a.AGENT_NAME: "worker",
        a.REQUEST_MODEL: policy,
        a.RESPONSE_MODEL: policy,
        a.OUTPUT_TYPE: "json",
        a.FINISH_REASONS: ["stop"],
        a.INPUT_MESSAGES: texts("user", asked),
        a.OUTPUT_MESSAGES: texts("assistant", reply),
        a.PROMPT_TOKEN_IDS: json.dumps(list(asked.encode())),
        a.TOKEN_IDS: json.dumps(list(reply.encode())),
        a.LOGPROBS: json.dumps([-0.5] * len(reply.encode())),
    }


def answers(samples: Sequence[Any]) -> list[str]:
    return [sample.messages[-1].content for sample in samples]


@pytest.fixture
def record(workspace: Workspace) -> Record:
    return Record(workspace)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (MineConfig(session="s1"), ["one"]),
        (MineConfig(user="bo"), ["two"]),
        (MineConfig(crew="shop"), ["two"]),
        (MineConfig(task_set="train"), ["one"]),
        (MineConfig(text="wo"), ["two"]),
        (MineConfig(policy=("base", "older")), ["one", "two"]),
        (MineConfig(policy=("older",)), ["two"]),
        (MineConfig(labelled="score", min_value=0.5), ["one"]),
        (MineConfig(status="ok"), ["one", "two", "three"]),
    ],
)
def test_a_filter_takes_turns_of_the_runs_that_meet_it(record: Record, asked: MineConfig, wanted: list[str]) -> None:
    record.run("one", CONVERSATION_ID="s1", task_set="train", score=1.0)
    record.run("two", USER_ID="bo", crew="shop", policy="older")
    record.run("three", policy="other")
    assert answers(record.mined(asked=asked)[0]) == wanted


def test_since_and_until_are_about_the_start_of_a_run(record: Record) -> None:
    record.run("one")
    (start,) = record.store.sql("SELECT min(start_ns) AS at FROM spans")["at"].to_pylist()
    assert answers(record.mined(asked=MineConfig(since_ns=start, until_ns=start + 1))[0]) == ["one"]
    assert record.mined(asked=MineConfig(since_ns=start + 1))[0] == []


def test_a_reply_that_is_not_the_json_that_was_asked_for_is_no_row(record: Record) -> None:
    record.run("one", "Sure! The answer is 2.")
    record.run("two")
    mining = SFTMining(Source(record.store, "worker", MineConfig()))
    assert len(list(mining)) == 1
    assert mining.refused == {"a reply that isn't the JSON that was asked for": 1}


def test_rows_with_keys_are_left_out_unless_they_are_wanted(record: Record) -> None:
    record.run("my key is sk-abcdefghij0123456789")
    record.run("two")
    samples, chosen = record.mined()
    assert answers(samples) == ["two"]
    assert (chosen.rows, chosen.left_out) == (2, {"holds a secret: key": 1})
    assert len(record.mined(ChooseConfig(secrets=True))[0]) == 2


def test_where_every_row_is_left_out_there_is_no_dataset(record: Record) -> None:
    record.run("one")
    samples, chosen = record.mined(ChooseConfig(max_tokens=1))
    assert (samples, chosen.left_out) == ([], {"longer than 1 tokens": 1})
    assert not list(record.workspace.datasets.glob("*"))


def test_weights_multiply_and_the_report_tells_each_step(record: Record) -> None:
    for question, score in (("easy", 1.0), ("easy", 1.0), ("hard", 1.0), ("hard", 0.0), ("hard", 0.0)):
        record.run(question, score=score)
    samples, chosen = record.mined(ChooseConfig(mix={"own": 0.5}, hard=10), asked=MineConfig(min_score=1))
    # Easy: (2 + 1) / (2 + 1); hard: (3 + 1) / (1 + 1).
    assert {sample.messages[-1].content: sample.weight for sample in samples} == {"easy": 0.5, "hard": 1.0}
    assert [(one.step, one.group, one.rows, one.factor) for one in chosen.weighed] == [
        ("mix", "own", 2, 0.5),
        ("hard", "succeeds in 75-100%", 1, 1.0),
        ("hard", "succeeds in 25-50%", 1, 2.0),
    ]


def test_a_hard_task_counts_so_many_times_at_most_and_a_teachers_runs_do_not_make_it_easy(record: Record) -> None:
    for _ in range(9):
        record.run("hard", score=0.0)
    record.run("hard", score=1.0)
    record.run("hard", score=1.0, purpose="teach")
    (sample,), _ = record.mined(ChooseConfig(hard=3), asked=MineConfig(min_score=1))
    assert sample.weight == 3
    (sample,), _ = record.mined(ChooseConfig(hard=30), asked=MineConfig(min_score=1))
    assert sample.weight == 5.5


def test_outliers_are_told_by_what_the_runs_were_worth(record: Record) -> None:
    for number, score in enumerate([1.0, 1.1, 0.9, 1.0, 90.0]):
        record.run(f"question {number}", score=score)
    samples, chosen = record.mined(ChooseConfig(outliers=3.5))
    assert (len(samples), chosen.left_out) == (4, {"a score far from the others'": 1})


RUNS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["moons", "rings"]), st.sampled_from(["base", "older"])),
    min_size=2,
    max_size=8,
    unique_by=lambda run: run[0],
)
FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=8, deadline=None, suppress_health_check=FIXTURES)
@given(RUNS, st.randoms())
def test_the_choice_is_the_same_in_any_order_of_the_record(runs: list[tuple[str, str, str]], random: Random) -> None:
    config = ChooseConfig(
        near=0.95, mix={"own": 0.5}, caps=(Cap(field="family", rows=2),), max_rows=3, balance="family", hard=4
    )

    def chosen() -> set[tuple[str, str, float]]:
        with TemporaryDirectory() as folder:
            record = Record(Workspace(Path(folder)))
            for question, family, policy in runs:
                record.run(f"what of {question * 9}?", TASK_FAMILY=family, policy=policy)
            samples, _ = record.mined(config)
            return {(*answers([sample]), sample.policy, sample.weight) for sample in samples}

    first = chosen()
    random.shuffle(runs)
    assert chosen() == first


QUESTIONS = {
    "How many moons has Mars?": False,
    "how many moons has mars": False,
    "How many moons has Mars now?": False,
    "Tell me: which planet is the hottest of all?": False,
    "List the customers of the north by name.": True,
    "Who painted this picture of a lamp?": True,
}
HELD_OUT = HeldOut(
    {
        "gate": [Task(id="g1", prompt="How many moons has Mars?")],
        "vault": [Task(id="v1", prompt="Which planet is the hottest of all?")],
    },
    0.7,
)


@settings(max_examples=15, deadline=None, suppress_health_check=FIXTURES)
@given(st.lists(st.tuples(*[st.sampled_from(sorted(QUESTIONS))] * 2), min_size=1, max_size=6), st.booleans())
def test_no_row_of_a_held_out_task_gets_in_whatever_the_order_of_events(
    events: list[tuple[str, str]], mined_before: bool
) -> None:
    """Of each event the task, and what the worker was asked. The lines are those of a pass that refuses nothing."""
    with TemporaryDirectory() as folder:
        record = Record(Workspace(Path(folder)))
        for task, asked in events:
            record.run(task, asked=asked)
        lines = list(SFTMining(Source(record.store, "worker", MineConfig())))
        source = Source(record.store, "worker", MineConfig(), held_out=HELD_OUT)

        def again() -> Iterator[bytes]:
            return iter(lines)

        choosing = Choosing(source, ChooseConfig(max_rows=9) if mined_before else None)
        written = {json.loads(line)["trace_id"] for line in choosing.over(again)}
        clean = {trace_id for trace_id, task, asked in _told(lines, record) if QUESTIONS[task] and QUESTIONS[asked]}
        assert written == clean
        assert choosing.chosen.held_out == {"gate": 1, "vault": 1}
        assert sum(choosing.chosen.left_out.values()) == len(lines) - len(written)


def _told(lines: Sequence[bytes], record: Record) -> Iterator[tuple[str, str, str]]:
    """Of each row its run, the run's task, and what its user asks."""
    prompts = {
        row["trace_id"]: row["prompt"] for row in record.store.sql("SELECT trace_id, prompt FROM workflows").to_pylist()
    }
    for row in map(json.loads, lines):
        yield row["trace_id"], prompts[row["trace_id"]], row["messages"][-1]["content"]
