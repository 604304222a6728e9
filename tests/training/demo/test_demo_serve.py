"""The demo in small, on a real server: every stage runs, and a second turn reuses what the first one made."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.live import AdapterServer
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.storage.store import TraceStore
from journeyman.training.data.demonstrations import TEACHER
from journeyman.training.demo.demo import Demo, DemoConfig, DemoResult

pytestmark = [
    pytest.mark.serve,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SMALL = DemoConfig(train_tasks=6, gate_tasks=2, test_tasks=2, steps={"lookup": 4, "orchestrator": 4})


class Told:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def stage(self, title: str, minutes: float) -> None:
        self.stages.append(title)

    def step(self, done: int, total: int, note: str) -> None:
        self.steps.append((done, total))


def turn(workspace: Workspace, server: ServerState, serve: Callable[[], ServerState]) -> tuple[DemoResult, Told]:
    told = Told()
    demo = Demo(workspace, SMALL, base_model=Path(server.model), server=serve, progress=told)
    return demo.run(), told


def test_the_demo_turns_the_loop_once_and_a_second_turn_reuses_it(
    workspace: Workspace, vllm_server: ServerState
) -> None:
    first, told = turn(workspace, vllm_server, lambda: vllm_server)
    rows = ["do_nothing", "single_agent", "untrained", "trained", "oracle_plan"]
    assert [row.name for row in first.rows] == rows
    assert [adapter.agent for adapter in first.adapters] == ["lookup", "orchestrator"]
    assert len(told.stages) == 7
    assert told.steps[-1] == (2, 2)
    # Two gate tasks decide nothing: what was not promoted is not in service, and the trained row says so.
    assert {adapter.verdict for adapter in first.adapters} == {"inconclusive"}
    assert {adapter.swap_ms for adapter in first.adapters} == {None}
    assert Journal(workspace.journal).active() == {}
    assert first.rows[3].score == first.rows[2].score
    assert _served(vllm_server) == {}

    traces = list(TraceStore(workspace.spans, workspace.labels).traces())
    assert all(trace.label("score") is not None for trace in traces)
    turns = [turn for trace in traces for turn in trace.turns if not turn.demonstration and turn.response]
    assert all(turn.served_by == turn.policy and turn.token_ids and turn.logprobs for turn in turns)
    # Whether a worker is reached depends on the base model's plans; the planners are asked whatever happens.
    assert {"base", "orchestrator@1"} <= {turn.policy for turn in turns} <= {"base", "lookup@1", "orchestrator@1"}

    second, _ = turn(workspace, vllm_server, not_needed)
    assert second == first
    assert len(list(TraceStore(workspace.spans, workspace.labels).traces())) == len(traces)
    json.dumps(second.model_dump(mode="json"))

    # With a plan that a person wrote the worker is reached for sure, and the adapter that the gate took out answers.
    demo = Demo(workspace, SMALL, base_model=Path(vllm_server.model), server=lambda: vllm_server, progress=Told())
    episodes = demo.held_out({"orchestrator": TEACHER, "lookup": "lookup@1"})
    tried = TraceStore(workspace.spans, workspace.labels).traces(ids={episode.trace_id for episode in episodes})
    served = [turn.served_by for trace in tried for turn in trace.turns if turn.agent == "lookup"]
    assert served and set(served) == {"lookup@1"}


def not_needed() -> ServerState:
    raise AssertionError("a second turn with nothing left to do asked for a server")


def _served(server: ServerState) -> dict[str, str]:
    with AdapterServer(server.url) as live:
        return live.served()
