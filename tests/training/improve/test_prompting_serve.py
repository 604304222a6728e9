"""The search for a prompt on a real server: what it finds serves, and what was tried can be learned from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew, Example, Limits
from journeyman.agents.worker import write_answer
from journeyman.runtime.adapters.current import CurrentPolicies
from journeyman.runtime.adapters.live import current_policies, promote
from journeyman.runtime.serving.backend import open_backend
from journeyman.runtime.serving.server import ServerState, attach
from journeyman.runtime.workspace import Workspace
from journeyman.traces.assemble import refusal
from journeyman.traces.trace import Task
from journeyman.training.evaluation.bench import Bench
from journeyman.training.improve.prompting import Prompting
from journeyman.training.improve.teach import SCORER
from journeyman.training.methods.job import load_recipe
from journeyman.training.methods.prompt import PromptRecipe

pytestmark = [pytest.mark.serve, pytest.mark.timeout(600)]

WORDS = ("tea", "milk", "bread", "rice")
TASKS = [Task(id=word, prompt=f"Repeat the word: {word}", reference=word) for word in WORDS]
CLERK = Agent(name="clerk", instructions="You sort post by its size.", limits=Limits(turns=1, tokens=24, repairs=0))
CREW = Crew(name="office", orchestrator=None, workers=(CLERK,))


def test_prompts_are_tried_on_a_real_server_with_instructions_that_it_wrote(
    workspace: Workspace, vllm_server: ServerState
) -> None:
    attach(workspace, vllm_server.url)
    settings = {"metric_calls": 8, "minibatch": 1, "reflect": "base", "reflect_tokens": 16}
    recipe = load_recipe("prompt", {f"prompt.{key}": value for key, value in settings.items()})
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
    assert prompted.search.metric_calls <= 8
    rows = workspace.store.sql("SELECT DISTINCT policy, served_by, refusal FROM turns").to_pylist()
    tried = [row for row in rows if row["policy"] != "base"]
    assert tried and {row["served_by"] for row in tried} == {"base"}
    assert {row["refusal"] for row in rows} <= {None, "truncated"}


def test_a_prompt_in_service_answers_by_the_weights_of_the_base_model_and_can_be_learned_from(
    workspace: Workspace, vllm_server: ServerState, make_prompt: Callable[..., Path]
) -> None:
    attach(workspace, vllm_server.url)
    shown = (Example(user="Repeat the word: egg", assistant=write_answer("egg")),)
    make_prompt("clerk@1", "You repeat words.", examples=shown)
    promote(workspace, "clerk@1", server=None, reason="test")
    backend = open_backend(workspace)
    bench = Bench(workspace, CREW, TASKS, SCORER, backend=lambda: backend, conditions=["office"], purpose="rollout")
    episodes = bench.episodes(CurrentPolicies(workspace)())
    trace = workspace.store.get(episodes[0].trace_id)
    (turn,) = trace.turns
    assert (turn.policy, turn.weights, turn.served_by) == ("clerk@1", "base", "base")
    assert [message.content for message in turn.messages[:2]] == ["You repeat words.", "Repeat the word: egg"]
    assert refusal(turn, trace.trajectories[0]) in (None, "truncated")
    assert turn.token_ids and turn.prompt_token_ids
