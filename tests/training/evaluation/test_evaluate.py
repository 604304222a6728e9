"""Evaluation: every task an episode, each written down the moment it is there."""

from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelRequest, ModelTable
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError, ModelError, ServerError, StoreError
from journeyman.traces.labels import Label, LabelLog
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Origin, Purpose, Task
from journeyman.training.evaluation.evaluate import (
    Episode,
    Watched,
    evaluate,
    known,
    load_scorer,
    mean_interval,
    read_episodes,
    summarise,
)

CREW = Crew(name="echo", orchestrator=None, workers=(Agent(name="worker", instructions="Answer."),))
TASKS = [Task(id=f"q{number}", prompt=f"{number}?", reference=str(number)) for number in range(4)]


def exact(task: Task, answer: str) -> float:
    return float(answer == task.reference)


def reply(request: ModelRequest) -> str:
    """Right for every task but the third."""
    number = request.messages[-1].content.removesuffix("?")
    if number == "2":
        raise ModelError("the server fell over")
    return write_answer(number)


def runtime() -> tuple[Runtime, ScriptedModel]:
    model = ScriptedModel(reply)
    return Runtime(CREW, model=model), model


async def test_every_task_is_an_episode_in_the_order_of_the_tasks() -> None:
    episodes = await evaluate(runtime()[0], TASKS, exact, concurrency=2)
    assert [episode.task_id for episode in episodes] == ["q0", "q1", "q2", "q3"]
    assert [episode.score for episode in episodes] == [1.0, 1.0, 0.0, 1.0]
    assert episodes[0].solved and episodes[0].model_calls == 1 and episodes[0].output_tokens > 0


async def test_an_evaluation_says_so_in_the_record(tmp_path: Path) -> None:
    for origin in (None, Origin(purpose="teach")):
        tracer = Tracer(SpanLog(tmp_path / "spans"))
        await evaluate(Runtime(CREW, model=ScriptedModel(reply), tracer=tracer), TASKS, exact, origin=origin)
    store = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl")
    purposes: tuple[Purpose, ...] = ("evaluation", "teach", "service")
    assert [len(store.ids(purpose=purpose)) for purpose in purposes] == [4, 4, 0]


async def test_a_failing_task_is_an_episode_with_its_status() -> None:
    failed = (await evaluate(runtime()[0], TASKS, exact))[2]
    assert failed.score == 0.0 and failed.status == "failed"
    assert failed.error is not None and "the server fell over" in failed.error


async def test_a_run_that_its_server_failed_is_no_episode_and_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    down = Watched(ModelTable(ScriptedModel([write_answer("0"), ModelError("gone", kind="unreachable")])))
    with pytest.raises(ServerError, match=r"task 'q1' says nothing: gone; run it again, what was measured is kept"):
        await evaluate(Runtime(CREW, model=down), TASKS, exact, models=down, path=path, concurrency=1)
    assert [episode.task_id for episode in read_episodes(path)] == ["q0"]
    up = Watched(ModelTable(ScriptedModel(reply)))
    episodes = await evaluate(Runtime(CREW, model=up), TASKS, exact, models=up, path=path)
    assert [episode.score for episode in episodes] == [1.0, 1.0, 0.0, 1.0], "what a server refuses, it refuses"


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_run_that_was_not_let_at_its_policy_is_no_episode(status: int) -> None:
    models = Watched(ModelTable(ScriptedModel([ModelError("not here", status=status)])))
    with pytest.raises(ServerError, match="task 'q0' says nothing: not here"):
        await evaluate(Runtime(CREW, model=models), TASKS[:1], exact, models=models)


async def test_a_policy_that_stood_in_for_a_server_that_failed_is_not_measured_in_its_place() -> None:
    both = {"big": ScriptedModel(reply)}
    models = Watched(ModelTable(ScriptedModel([ModelError("gone", kind="server_error")]), both))
    crew = CREW.model_copy(update={"workers": (CREW.workers[0].model_copy(update={"fallback": ("big",)}),)})
    with pytest.raises(ServerError, match="says nothing: gone"):
        await evaluate(Runtime(crew, model=models), TASKS[:1], exact, models=models)


async def test_finished_tasks_are_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "evaluations" / "episodes.jsonl"
    first = await evaluate(runtime()[0], TASKS[:3], exact, path=path)
    again, model = runtime()
    seen: list[Episode] = []
    episodes = await evaluate(again, TASKS, exact, path=path, on_episode=seen.append)
    assert len(model.requests) == 1
    assert episodes[:3] == first and len(seen) == 4
    assert {episode.task_id for episode in read_episodes(path)} == {"q0", "q1", "q2", "q3"}


async def test_a_task_that_was_changed_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    await evaluate(runtime()[0], TASKS[:1], exact, path=path)
    again, model = runtime()
    changed = TASKS[0].model_copy(update={"reference": "zero"})
    assert (await evaluate(again, [changed], exact, path=path))[0].score == 0.0
    assert len(model.requests) == 1


async def test_a_line_cut_short_by_a_crash_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    await evaluate(runtime()[0], TASKS[:2], exact, path=path, concurrency=1)
    path.write_bytes(path.read_bytes()[:-20])
    again, model = runtime()
    await evaluate(again, TASKS[:2], exact, path=path)
    assert len(model.requests) == 1
    assert len(read_episodes(path)) == 2


async def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(ConfigError, match="holds something other than episodes"):
        await evaluate(runtime()[0], TASKS, exact, path=tmp_path / "episodes.jsonl")


async def test_every_trace_gets_its_score_as_a_label(tmp_path: Path) -> None:
    labels = LabelLog(tmp_path / "labels.jsonl")
    episodes = await evaluate(runtime()[0], TASKS, exact, label=labels.append)
    assert {(label.trace_id, label.value) for label in labels} == {(e.trace_id, e.score) for e in episodes}
    assert {(label.name, label.source.split(":")[-1]) for label in labels} == {("score", "exact")}


async def test_a_label_that_cannot_be_kept_ends_the_evaluation() -> None:
    def refuse(label: Label) -> None:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        await evaluate(runtime()[0], TASKS, exact, label=refuse)


def test_a_summary_is_a_row_of_the_table() -> None:
    episodes = [episode(score, seconds) for score, seconds in ((1.0, 1.0), (0.0, 2.0), (0.5, 3.0), (1.0, 10.0))]
    row = summarise("crew", episodes)
    assert (row.tasks, row.score, row.solved, row.tokens_per_task, row.calls_per_task) == (4, 0.625, 2, 20.0, 2.0)
    assert row.low < row.score < row.high
    assert row.p50_s == 2.5 and row.p90_s == pytest.approx(7.9)
    with pytest.raises(ConfigError, match="no episodes"):
        summarise("crew", [])


def test_the_interval_is_the_same_every_time_and_holds_the_normal_one_nearly() -> None:
    values = [float(number % 7) for number in range(200)]
    low, high = mean_interval(values, confidence=0.95)
    assert (low, high) == mean_interval(values, confidence=0.95)
    assert low == pytest.approx(2.97 - 1.96 * 2.0 / 200**0.5, abs=0.02)
    assert high == pytest.approx(2.97 + 1.96 * 2.0 / 200**0.5, abs=0.02)


def test_scorers_are_found_by_name() -> None:
    assert load_scorer("journeyman.training.rewards:answer_in_text")(TASKS[1], "1") == 1.0
    for name in (
        "nowhere:f",
        "journeyman.training.rewards:nothing",
        "answer_in_text",
        "journeyman.traces.trace:TRACE_VERSION",
    ):
        with pytest.raises(ConfigError, match="scorer"):
            load_scorer(name)


def episode(score: float, seconds: float) -> Episode:
    return Episode(
        task_id=f"{score}-{seconds}",
        score=score,
        status="ok",
        input_tokens=10,
        output_tokens=20,
        model_calls=2,
        seconds=seconds,
        trace_id="t",
    )


async def test_what_was_run_before_is_read_without_a_crew(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    first = await evaluate(runtime()[0], TASKS[:3], exact, path=path)
    assert known(path, TASKS[:2]) == first[:2]
    assert known(path, TASKS) == first
