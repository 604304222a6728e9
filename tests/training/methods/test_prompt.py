"""What an adapter keeps of a prompt candidate that it learned under, and what may stand in a recipe of the method."""

from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.prompt import prompt_form
from journeyman.runtime.adapters.adapter import load_adapter, read_prompt
from journeyman.runtime.adapters.prompts import prompt_in_form, read_prompts
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError
from journeyman.traces.messages import Message
from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.job import load_recipe, train_adapter

MakePrompt = Callable[..., Path]
WORKER = Agent(name="worker", instructions="Answer.")
CREW = Crew(name="echo", orchestrator=None, workers=(WORKER,))


@pytest.mark.train
def test_an_adapter_that_learned_in_a_prompt_candidates_words_is_asked_in_them(
    workspace: Workspace, make_prompt: MakePrompt
) -> None:
    prompt = read_prompt(make_prompt("worker@1", "Reply.", in_crew=CREW))
    form = prompt_form(WORKER, CREW, prompt).digest
    rows = [
        SFTSample(
            agent="worker",
            policy="worker@1",
            trace_id=f"{number:032x}",
            span_ids=(f"{number:016x}",),
            messages=(Message(role="system", content="Reply."), Message(role="user", content=f"{number}?")),
            completion=f'{{"answer": "{number}"}}',
            prompt_form=form,
        )
        for number in range(4)
    ]
    recipe = load_recipe("sft", {"trl.max_steps": 1, "trl.per_device_train_batch_size": 2})
    adapter = train_adapter(
        rows, agent="worker", recipe=recipe, base_model=pull_model(), workspace=workspace, start="worker@1"
    )
    assert (adapter.policy, adapter.start, adapter.prompt_form) == ("worker@2", "base", form)
    assert load_adapter(workspace.adapters / "worker@2") == adapter
    prompts = read_prompts(workspace.adapters, ["worker@2"])
    assert (prompts["worker@2"].instructions, prompts["worker@2"].weights) == ("Reply.", "worker@2")
    table = PolicyTable(agents={"worker": "worker@2"}, prompts=prompts)
    assert table.weights("worker@2") == "worker@2"
    (workspace.adapters / "worker@2" / "prompt.json").unlink()
    with pytest.raises(AdapterError, match="altered since training"):
        load_adapter(workspace.adapters / "worker@2")


def test_the_newest_prompt_in_that_form_is_taken(workspace: Workspace, make_prompt: MakePrompt) -> None:
    folders = [make_prompt(f"worker@{number}", "Reply.", in_crew=CREW) for number in (1, 2)]
    make_prompt("worker@3", "Speak.", in_crew=CREW)
    form = prompt_form(WORKER, CREW, read_prompt(folders[1])).digest
    assert prompt_in_form(workspace.adapters, "worker", form) == read_prompt(folders[1])
    assert prompt_in_form(workspace.adapters, "worker", "0" * 16) is None
    assert prompt_in_form(workspace.adapters, "clerk", form) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora.r": 8}, "lora: a prompt candidate trains no weights; take the table out"),
        ({"trl.max_steps": 8}, "trl: a prompt candidate trains no weights"),
        ({"prompt.examples": 0}, "examples is 0 and nobody reflects, so no prompt can change"),
        ({"prompt.selection": 1.0}, "prompt.selection"),
        ({"prompt.rounds": 3}, "prompt.rounds"),
    ],
)
def test_what_a_recipe_may_not_say_is_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("prompt", settings)
    assert words in str(error.value) and "\n" not in str(error.value)
