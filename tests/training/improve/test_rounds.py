"""Each round samples with the newest weights, learns, and hands its weights on; a kill costs a round at most."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.crew_file import load_crew
from journeyman.runtime.adapters.adapter import CONFIG, WEIGHTS, Probe
from journeyman.runtime.batch import read_tasks
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.serving.backend import open_backend
from journeyman.runtime.serving.server import attach
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ServerError, TrainingError
from journeyman.training.improve.rounds import Round, Rounds, read_rounds
from journeyman.training.methods.alarms import Alarm, StepMetrics
from journeyman.training.methods.plan import Fitted
from journeyman.training.rollouts.collect import Collected, Collector
from journeyman.training.rollouts.rewards import RewardTable
from journeyman.training.rollouts.rows import TurnRow
from journeyman.training.rollouts.sample import Exploring
from journeyman.training.rollouts.table import RolloutTable
from journeyman.training.rollouts.versions import Versions

SCORER = "journeyman.training.rewards:answer_in_text"


class Counting:
    """A learner whose weights are the number of its steps."""

    def __init__(self, done: int = 0, stops_at: int | None = None) -> None:
        self.done = done
        self.checkpoints: list[int] = []
        self.learned: list[Sequence[TurnRow]] = []
        self.held_out: list[float | None] = []
        self._stops_at = stops_at

    def step(self, rows: Sequence[TurnRow], *, flat_share: float, held_out: float | None) -> StepMetrics:
        self.done += 1
        self.learned.append(rows)
        self.held_out.append(held_out)
        numbers = dict.fromkeys(
            ("loss", "grad_norm", "learning_rate", "kl", "entropy", "clip_share", "ratio_mean", "ratio_truncated"), 0.5
        )
        more = dict.fromkeys(("reward_mean", "reward_std", "length", "seconds"), 0.5)
        alarm = Alarm(name="kl", action="stop", value=1.0, limit=0.3)
        alarms = (alarm,) if self.done == self._stops_at else ()
        return StepMetrics(step=self.done, rows=len(rows), alarms=alarms, **numbers, **more)

    def save(self, folder: Path) -> None:
        (folder / CONFIG).write_text("{}")
        (folder / WEIGHTS).write_text(str(self.done))

    def checkpoint(self) -> None:
        self.checkpoints.append(self.done)

    def finish(self, epochs: float) -> Fitted:
        probe = Probe(token_ids=(1, 2), adapter_logprobs=(0.0,), base_logprobs=(0.0,))
        return Fitted(seconds=1.0, probe=probe, steps=self.done, epochs=epochs, eval_loss=None)


@pytest.fixture
def partial(workspace: Workspace) -> Path:
    folder = workspace.adapters / ".worker@3.partial"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def rounds(workspace: Workspace, partial: Path, url: str, files: list[str]) -> Callable[..., Rounds]:
    attach(workspace, url)
    backend = open_backend(workspace)
    tasks, _ = read_tasks(Path(files[3]))
    assert backend.server is not None

    def make(learner: Counting, *, total: int = 2, rows: RolloutTable | None = None, **more: Any) -> Rounds:
        table = rows or RolloutTable(tasks=2, group=2)
        exploring = Exploring(
            workspace, load_crew(Path(files[1])), "worker", tasks[:4], tasks[4:6], SCORER, backend, "tasks.jsonl"
        )
        assert backend.server is not None
        versions = Versions(workspace, backend.server, "worker@3", partial)
        collector = Collector(exploring, versions, PolicyTable(), partial, table, RewardTable(), mask_truncated=True)
        given: dict[str, Any] = {"keep": lambda number, collected: None, "on_round": lambda one: None, "save_every": 1}
        return Rounds(learner, collector, versions, partial, total=total, staleness=table.staleness, **(given | more))

    return make


def asked_of(peer: Any) -> list[str]:
    """The policies in the order in which they were first asked."""
    return list(dict.fromkeys(peer.chats))


def test_each_round_asks_the_weights_of_the_one_before(
    rounds: Callable[..., Rounds], peer: Any, workspace: Workspace
) -> None:
    learner, told = Counting(), list[Round]()
    made = rounds(learner, total=3, on_round=told.append)
    made.run()
    assert asked_of(peer) == ["worker@3.0", "worker@3.1", "worker@3.2"]
    assert list(peer.loaded) == ["worker@3.2"]
    assert [(one.version, one.steps, one.staleness, one.runs) for one in told] == [(n, n + 1, 0, 4) for n in range(3)]
    assert [{row.version for row in rows} for rows in learner.learned] == [{0}, {1}, {2}]
    assert learner.checkpoints == [1, 2, 3]
    assert all(one.swap_ms > 0 for one in told)


def test_a_rollout_is_recorded_as_one_and_names_the_weights_that_answered(
    rounds: Callable[..., Rounds], workspace: Workspace
) -> None:
    rounds(Counting(), total=1).run()
    traces = list(workspace.store.traces(policy=["worker@3.0"]))
    purposes = [trace.origin.purpose for trace in traces if trace.origin is not None]
    assert sorted(purposes) == ["evaluation"] * 2 + ["rollout"] * 4
    turns = [turn for trace in traces for turn in trace.turns]
    assert {turn.served_by for turn in turns} == {"worker@3.0"}
    assert len({turn.adapter_digest for turn in turns}) == 1 and turns[0].adapter_digest


def test_rows_are_what_the_record_says(rounds: Callable[..., Rounds], workspace: Workspace) -> None:
    learner, kept = Counting(), list[Collected]()
    rounds(learner, total=1, keep=lambda number, collected: kept.append(collected)).run()
    (rows,) = learner.learned
    assert rows == kept[0].rows
    for row in rows:
        (turn,) = workspace.store.get(row.trace_id).turns
        assert (row.prompt_ids, row.completion_ids, row.old_logprobs) == (
            turn.prompt_token_ids,
            turn.token_ids,
            turn.logprobs,
        )
    assert {row.reward for row in rows} == {0.0, 1.0}


def test_held_out_tasks_are_looked_at_and_never_learned_from(rounds: Callable[..., Rounds]) -> None:
    learner, told = Counting(), list[Round]()
    rounds(learner, total=2, on_round=told.append).run()
    assert [one.held_out for one in told] == [0.5, None] == learner.held_out


def test_a_round_that_a_kill_cut_short_is_learned_again_from_the_same_runs(
    rounds: Callable[..., Rounds], peer: Any, partial: Path
) -> None:
    first = Counting()
    rounds(first, total=2).run()
    chats = len(peer.chats)
    again = Counting(done=1)  # As restored: the second step's checkpoint never came.
    rounds(again, total=2).run()
    assert len(peer.chats) == chats
    assert again.learned == first.learned[1:]
    assert [one.steps for one in read_rounds(partial, 2)] == [1, 2]


def test_a_line_that_a_kill_cut_short_is_none(rounds: Callable[..., Rounds], partial: Path) -> None:
    rounds(Counting(), total=2).run()
    log = partial / "rounds.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    assert [one.number for one in read_rounds(partial, 2)] == [1]


def test_rollouts_run_while_the_trainer_computes_and_are_as_old_as_allowed(
    rounds: Callable[..., Rounds], peer: Any
) -> None:
    told = list[Round]()
    table = RolloutTable(tasks=2, group=2, staleness=1)
    rounds(Counting(), total=4, rows=table, on_round=told.append).run()
    assert [(one.version, one.staleness) for one in told] == [(0, 0), (0, 1), (1, 1), (2, 1)]
    assert list(peer.loaded) == ["worker@3.2"]


def test_a_server_that_fails_costs_a_round_at_most(rounds: Callable[..., Rounds], peer: Any) -> None:
    learner = Counting()
    peer.forgets = True
    with pytest.raises(ServerError, match="answered 404"):
        rounds(learner, total=2).run()
    peer.forgets = False
    rounds(learner, total=2).run()
    assert learner.done == 2


def test_a_server_that_was_started_again_is_given_the_weights_again(rounds: Callable[..., Rounds], peer: Any) -> None:
    learner = Counting()
    rounds(learner, total=1).run()
    peer.loaded.clear()
    rounds(learner, total=2).run()
    assert list(peer.loaded) == ["worker@3.1"]


def test_an_alarm_that_stops_ends_the_training(rounds: Callable[..., Rounds]) -> None:
    learner = Counting(stops_at=2)
    made = rounds(learner, total=5)
    made.run()
    assert (learner.done, len(made.done)) == (2, 2)


def test_a_constant_reward_ends_the_training_in_plain_words(rounds: Callable[..., Rounds], peer: Any) -> None:
    peer.dull = True
    learner = Counting()
    with pytest.raises(TrainingError, match="the reward is constant: all 6 groups of 3 rounds are flat, at 0 in the"):
        rounds(learner, total=9).run()
    assert learner.done == 0


def test_a_log_of_something_else_is_refused(partial: Path) -> None:
    (partial / "rounds.jsonl").write_text(json.dumps({"a": 1}) + "\n")
    with pytest.raises(TrainingError, match="isn't a training's: remove"):
        read_rounds(partial, 0)
