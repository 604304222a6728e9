"""GRPO end to end: a crew on a real server, whose weights are other ones after each step."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.runtime.adapters.adapter import adapter_folders, load_adapter, read_adapter
from journeyman.runtime.adapters.lineage import AdapterLineage, trace_lineage
from journeyman.runtime.adapters.live import AdapterServer, swap_in
from journeyman.runtime.serving.backend import open_backend
from journeyman.runtime.serving.server import ServerState, attach
from journeyman.runtime.workspace import Workspace
from journeyman.traces.trace import Task
from journeyman.training.improve.alternate import Alternation
from journeyman.training.improve.from_tasks import TaskJob, Watcher
from journeyman.training.improve.online import train_online
from journeyman.training.improve.rounds import Round
from journeyman.training.methods.recipes.known import load_recipe

pytestmark = [pytest.mark.serve, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

CREW = Crew(
    name="choosers",
    orchestrator=None,
    workers=(
        Agent(
            name="chooser",
            instructions='Reply with JSON only, such as {"answer": "red"}.',
            limits=Limits(turns=1, tokens=24),
        ),
    ),
)
TASKS = [
    Task(id=f"t{number}", prompt=f"Choose one of them: {one} or {other}.", reference=one)
    for number, (one, other) in enumerate([("red", "blue"), ("cat", "dog"), ("tea", "milk"), ("north", "south")])
]


@pytest.fixture
def given(workspace: Workspace, vllm_server: ServerState) -> dict[str, Any]:
    """What `train_online` is called with."""
    attach(workspace, vllm_server.url)
    settings = {
        "trl.max_steps": 2,
        "rollouts.tasks": 2,
        "rollouts.group": 4,
        "lora.r": 8,
        "lora.alpha": 16,
        "trl.learning_rate": 1e-3,
    }
    return {
        "agent": "chooser",
        "recipe": load_recipe("grpo", settings),
        "base_model": Path(vllm_server.model),
        "workspace": workspace,
        "backend": open_backend(workspace),
        "scorer": "journeyman.training.rewards:answer_in_text",
        "source": "choices.jsonl",
    }


class KilledError(Exception):
    pass


def kill(one: Round) -> None:
    raise KilledError


def test_a_crew_s_rollouts_become_an_adapter_that_the_server_proves(
    workspace: Workspace, vllm_server: ServerState, given: dict[str, Any]
) -> None:
    told: list[Round] = []
    with pytest.raises(KilledError):  # In the first round, after its checkpoint.
        train_online(TASKS, CREW, on_round=kill, **given)
    adapter = train_online(TASKS, CREW, on_round=told.append, **given)
    assert [one.number for one in told] == [2]
    assert told[0].version == 1 and told[0].step is not None
    assert abs(told[0].step.ratio_mean - 1) < 0.25  # Where the schema leaves a choice, it forbids some, too.
    assert adapter.policy == "chooser@1" and load_adapter(workspace.adapters / "chooser@1") == adapter
    assert (adapter.method, adapter.steps, adapter.tasks_digest is not None) == ("grpo", 2, True)
    traces = [trace for trace in workspace.store.traces() if trace.origin and trace.origin.purpose == "rollout"]
    assert {turn.served_by for trace in traces for turn in trace.turns} == {"chooser@1.0", "chooser@1.1"}
    assert len(traces) == 16
    lineage = trace_lineage(workspace, "chooser@1")
    assert isinstance(lineage, AdapterLineage) and lineage.spans == adapter.rows
    server = open_backend(workspace).server
    assert server is not None
    with AdapterServer(server.url) as live:
        assert not [name for name in live.served() if name.startswith("chooser@1.")]
        swap = swap_in(workspace, server, "chooser@1")
        live.unload("chooser@1")
    assert swap is not None and swap.distance.adapter < swap.distance.base
    assert train_online(TASKS, CREW, **given) == adapter


PAIR = """
name = "pair"
[orchestrator]
instructions = "Give the task to one worker, in a few words."
limits = { turns = 1, tokens = 96 }
[workers.chooser]
instructions = 'Reply with JSON only, such as {"answer": "red"}.'
limits = { turns = 1, tokens = 24 }
"""


def test_agents_that_learn_in_turn_are_sampled_beside_the_newest_of_each_other(
    workspace: Workspace, vllm_server: ServerState, tmp_path: Path
) -> None:
    attach(workspace, vllm_server.url)
    crew = tmp_path / "pair.toml"
    crew.write_text(PAIR)
    # Any two replies differ in length, so that there is something to learn from.
    rewards = {"rewards.length": 1.0, "rewards.form_alone": True}
    short = {"trl.max_steps": 2, "rollouts.tasks": 1, "rollouts.group": 4, "lora.r": 8, "lora.alpha": 16}
    jobs = [
        TaskJob(
            workspace=workspace,
            agent=agent,
            recipe=load_recipe("grpo", {**rewards, **short, "trl.learning_rate": 1e-3}),
            crew=crew,
            tasks=tuple(TASKS),
            source="choices.jsonl",
            scorer="journeyman.training.rewards:answer_in_text",
            base_model=Path(vllm_server.model),
        )
        for agent in ("orchestrator", "chooser")
    ]
    newest = Alternation(jobs, every=1).train(Watcher())
    assert {agent: adapter.policy for agent, adapter in newest.items()} == {
        "orchestrator": "orchestrator@2",
        "chooser": "chooser@2",
    }
    starts = [(one.policy, one.start, one.steps) for one in map(read_adapter, adapter_folders(workspace.adapters))]
    assert sorted(starts) == [
        ("chooser@1", "base", 1),
        ("chooser@2", "chooser@1", 1),
        ("orchestrator@1", "base", 1),
        ("orchestrator@2", "orchestrator@1", 1),
    ]
    beside = {
        tuple(sorted({turn.served_by for turn in trace.turns if turn.served_by})) for trace in workspace.store.traces()
    }
    assert {one for one in beside if len(one) == 2} == {
        ("base", "orchestrator@1.0"),
        ("chooser@1.0", "orchestrator@1"),
        ("chooser@1", "orchestrator@2.0"),
        ("chooser@2.0", "orchestrator@2"),
    }
    with AdapterServer(vllm_server.url) as live:
        assert not [name for name in live.served() if name.startswith(("orchestrator@", "chooser@"))]
    assert Alternation(jobs, every=1).train(Watcher()) == newest
