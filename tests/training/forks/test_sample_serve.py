"""Alternatives that a real server sampled share their prompt with the recorded call, token for token."""

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelTable
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.serving.backend import Backend
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.trace import Task
from journeyman.training.data.mine import mine_sft
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.forks.alternatives import Alternatives
from journeyman.training.forks.runs import Forkable
from journeyman.training.forks.sample import choose_draws
from journeyman.training.rewards import answer_in_text

CREW = Crew(
    name="poets",
    orchestrator=None,
    workers=(Agent(name="poet", instructions="Answer in JSON.", limits=Limits(turns=1, tokens=48)),),
)


@pytest.mark.serve
def test_what_the_server_sampled_can_be_learned_from_beside_the_call_that_it_replaces(
    vllm_server: ServerState, workspace: Workspace
) -> None:
    backend = Backend(models=ModelTable(ChatVLLM(base_url=vllm_server.url)), router=None, server=vllm_server)
    with Recording(workspace) as recording:
        runtime = Runtime(CREW, model=backend.models, tracer=recording.tracer)
        runtime.run_sync(Task(id="t", prompt="Name any colour you like.", reference="blue"))
    source = Source(workspace.store, "poet", MineConfig())
    forkable = Forkable(source, CREW, answer_in_text)
    alternatives = Alternatives(
        workspace,
        CREW,
        "journeyman.training.rewards:answer_in_text",
        backend=backend,
        policies=PolicyTable(),
        purpose="rollout",
        budget=4,
    )
    made = alternatives.take(choose_draws(forkable, 4, 4))
    assert (len(made), alternatives.calls) == (4, 4)
    recorded, *drawn = (
        workspace.store.get(trace_id).turns[0] for trace_id in (made[0].run, *(m.trace_id for m in made))
    )
    assert all(turn.prompt_token_ids == recorded.prompt_token_ids for turn in drawn)
    assert all(turn.logprobs and len(turn.logprobs) == len(turn.token_ids or ()) for turn in drawn)
    assert len({turn.token_ids for turn in drawn}) > 1
    mined = mine_sft(Source(workspace.store, "poet", MineConfig(purposes=("rollout",))))
    assert mined.turns + sum(mined.refused.values()) == 4
    assert not {"no token ids", "made for replay"} & set(mined.refused)
