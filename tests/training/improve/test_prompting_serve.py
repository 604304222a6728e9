"""The search for a prompt on a real server: what it finds serves, and what was tried can be learned from."""

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.runtime.adapters.current import CurrentPolicies
from journeyman.runtime.adapters.live import current_policies, promote
from journeyman.runtime.serving.backend import open_backend
from journeyman.runtime.serving.server import ServerState, attach
from journeyman.runtime.workspace import Workspace
from journeyman.traces.trace import Task
from journeyman.training.evaluation.bench import Bench
from journeyman.training.improve.prompting import Prompting
from journeyman.training.improve.teach import SCORER
from journeyman.training.methods.job import load_recipe
from journeyman.training.methods.prompt import PromptRecipe

pytestmark = pytest.mark.serve

WORDS = ("tea", "milk", "bread", "rice", "salt", "soup")
TASKS = [Task(id=word, prompt=f"Repeat the word: {word}", reference=word) for word in WORDS]
CLERK = Agent(name="clerk", instructions="You sort post by its size.", limits=Limits(turns=1, tokens=24, repairs=0))
CREW = Crew(name="office", orchestrator=None, workers=(CLERK,))


def test_a_prompt_is_found_on_a_real_server_and_answers_in_service(
    workspace: Workspace, vllm_server: ServerState
) -> None:
    attach(workspace, vllm_server.url)
    recipe = load_recipe(
        "prompt",
        {"prompt.metric_calls": 14, "prompt.minibatch": 2, "prompt.reflect": "base", "prompt.reflect_tokens": 32},
    )
    assert isinstance(recipe, PromptRecipe)
    backend = open_backend(workspace)
    assert vllm_server.model_digest is not None
    prompting = Prompting(
        workspace,
        CREW,
        "clerk",
        TASKS,
        recipe,
        conditions=["office"],
        base_digest=vllm_server.model_digest,
        backend=lambda: backend,
        source="words",
    )
    prompting.bench(prompting.learn).episodes(current_policies(workspace))
    prompted = prompting.optimise()
    assert prompted.search.metric_calls <= 14
    rows = workspace.store.sql("SELECT DISTINCT policy, served_by, refusal FROM turns").to_pylist()
    tried = [row for row in rows if row["policy"] != "base"]
    assert tried and {row["served_by"] for row in tried} == {"base"}
    assert {row["refusal"] for row in rows} <= {None, "truncated"}
    if prompted.adapter is None:
        return  # Such a small model may write nothing better.
    promote(workspace, prompted.adapter.policy, server=vllm_server, reason="test")
    bench = Bench(*(workspace, CREW, TASKS, SCORER), backend=lambda: backend, conditions=["office"], purpose="gate")
    episodes = bench.episodes(CurrentPolicies(workspace)())
    trace = workspace.store.get(episodes[0].trace_id)
    assert (trace.turns[0].policy, trace.turns[0].weights) == (prompted.adapter.policy, "base")
