"""A policy in a server of its own: merged weights answer under the adapter's name, and are proved to be its own."""

from pathlib import Path

import httpx
import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.runtime.adapters.live import AdapterServer
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.serving.embedded import model_digest
from journeyman.runtime.serving.server import running
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ServerError
from journeyman.traces.messages import Message
from journeyman.traces.trace import Task
from journeyman.training.data.samples import SFTSample
from journeyman.training.evaluation.bench import with_policies
from journeyman.training.improve.merged import SERVER, merged_backend, merged_server
from journeyman.training.methods.job import train_adapter
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.rollouts.sample import Exploring, Sampling, sample_group

pytestmark = [
    pytest.mark.serve,
    pytest.mark.train,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),
]
CREW = Crew(
    name="echo", orchestrator=None, workers=(Agent(name="worker", instructions="Answer.", limits=Limits(tokens=24)),)
)
SAMPLES = [
    SFTSample(
        agent="worker",
        policy="teacher",
        trace_id=f"{number:032x}",
        span_ids=(f"{number:016x}",),
        messages=(Message(role="user", content=f"{number}?"),),
        completion=f'{{"answer": "{number} is a number"}}',
    )
    for number in range(8)
]


def test_merged_weights_answer_as_the_adapter_until_the_block_ends(workspace: Workspace, embedded_model: Path) -> None:
    options = {"trl.max_steps": 3, "trl.learning_rate": 2e-3, "trl.per_device_train_batch_size": 4}
    adapter = train_adapter(
        SAMPLES, agent="worker", recipe=load_recipe("sft", options), base_model=embedded_model, workspace=workspace
    )
    with merged_server(workspace, "worker@1", embedded_model, streams=4) as server:
        cards = httpx.get(f"{server.url}/v1/models", trust_env=False).json()["data"]
        assert [card["id"] for card in cards] == ["worker@1"], "it never answers as the base model"
        assert server.model_digest == model_digest(embedded_model)
        exploring = Exploring(
            workspace=workspace,
            crew=CREW,
            agent="worker",
            tasks=[Task(id="q", prompt="3?", reference="3")],
            held_out=(),
            scorer="journeyman.training.rewards:answer_in_text",
            backend=merged_backend(workspace, "worker@1", server, None),
        )
        wanted = Sampling(
            tasks=exploring.tasks,
            policies=with_policies(workspace, PolicyTable(), {"worker": "worker@1"}),
            folder=workspace.root / "draws",
            seeds=(1, 2),
            concurrency=2,
        )
        ids = [episode.trace_id for episode in sample_group(exploring, wanted)]
        (turn, *_) = [turn for trace in workspace.store.traces(ids=ids) for turn in trace.turns]
        assert (turn.policy, turn.served_by, turn.adapter_digest) == ("worker@1", "worker@1", adapter.digest)
        assert turn.token_ids
        assert turn.logprobs
        (copy,) = [path for path in (workspace.root / SERVER).iterdir() if path.is_dir()]
        assert (copy / "chat_template.jinja").exists() == (embedded_model / "chat_template.jinja").exists()
        with AdapterServer(server.url) as live, pytest.raises(AdapterError):
            live.score("worker@2", [1, 2, 3])
    with pytest.raises(ServerError, match="no server is running"):
        running(Workspace(workspace.root / SERVER))
    assert not (workspace.root / SERVER).exists()
