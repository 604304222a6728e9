"""Distillation on the embedded model: real TRL, few steps."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.adapter import load_adapter
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError, TrainingError
from journeyman.traces.messages import Message
from journeyman.training.data.samples import PromptSample, Sample, SFTSample
from journeyman.training.methods.job import plan_job, train_adapter
from journeyman.training.methods.recipes.known import load_recipe

CREW = """
name = "capitals"

[workers.worker]
instructions = "Reply."
"""
EXAMPLES = """
[[workers.worker.examples]]
user = "Capital of Spain?"
assistant = '{"answer": "Madrid"}'
"""


@pytest.fixture(scope="module")
def base_model() -> Path:
    return pull_model()


def samples(**changes: Any) -> list[SFTSample]:
    return [
        SFTSample(
            agent="worker",
            policy="teacher",
            trace_id=f"{number:032x}",
            span_ids=(f"{number:016x}",),
            messages=(Message(role="system", content="Reply."), Message(role="user", content=f"Capital of {country}?")),
            completion=json.dumps({"answer": "Rome"}),
        ).model_copy(update=changes)
        for number, country in enumerate(("Italy", "Peru"))
    ]


def prompts() -> list[PromptSample]:
    return [
        PromptSample(
            agent="worker",
            origin="recorded",
            trace_id=sample.trace_id,
            span_ids=sample.span_ids,
            reward="score",
            scorer="m:f",
            success_rate=0.5,
            tries=2,
            messages=sample.messages,
        )
        for sample in samples()
    ]


def plan(
    workspace: Workspace, base_model: Path, rows: list[Any], start: str = "base", **settings: Any
) -> dict[str, Any]:
    recipe = load_recipe("distill", settings)
    planned = plan_job(rows, agent="worker", recipe=recipe, base_model=base_model, workspace=workspace, start=start)
    return {choice.key: choice.value for choice in planned.choices}


def losses(workspace: Workspace, base_model: Path, rows: Sequence[Sample], **settings: Any) -> list[float]:
    seen: list[float] = []
    short = {"trl.max_steps": 1, "trl.per_device_train_batch_size": 2, "trl.max_completion_length": 8}
    train_adapter(
        rows,
        agent="worker",
        recipe=load_recipe("distill", {**short, **settings}),
        base_model=base_model,
        workspace=workspace,
        on_step=lambda step: seen.append(step.loss),
    )
    return seen


def crew_file(folder: Path, text: str) -> str:
    (folder / "crew.toml").write_text(text)
    return str(folder / "crew.toml")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"teacher.policy": "worker@1", "teacher.model": "m"}, "there is one teacher: leave out policy or model"),
        ({"trl.teacher_model_name_or_path": "m"}, r"teacher_model_name_or_path can't be set: \[teacher\] names"),
        ({"teacher.prompt": "long"}, "unknown key 'teacher.prompt'"),
    ],
)
def test_a_recipe_that_names_its_teacher_wrongly_is_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_recipe("distill", settings)


class TestRefused:
    def test_a_teacher_that_is_the_student(self, workspace: Workspace, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="the teacher is base, and so is the student"):
            plan(workspace, tmp_path, samples())
        with pytest.raises(ConfigError, match="the teacher is worker@1, and so is the student"):
            plan(workspace, tmp_path, samples(), start="worker@1", **{"teacher.policy": "worker@1"})

    def test_a_teacher_that_is_gone(self, workspace: Workspace, base_model: Path) -> None:
        with pytest.raises(AdapterError, match="there is no adapter worker@9"):
            plan(workspace, base_model, samples(), **{"teacher.policy": "worker@9"})
        with pytest.raises(ConfigError, match="there is no model 'nowhere'"):
            plan(workspace, base_model, samples(), **{"teacher.model": "nowhere"})

    def test_a_teacher_on_another_base_model(self, workspace: Workspace, base_model: Path, make_adapter: Any) -> None:
        make_adapter("worker@1")
        with pytest.raises(ConfigError, match="the teacher worker@1 is on base model bbbbbbbbbbbb, not on"):
            plan(workspace, base_model, samples(), **{"teacher.policy": "worker@1"})

    def test_a_teacher_with_another_tokenizer(self, workspace: Workspace, base_model: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        shutil.copytree(base_model, other, ignore=shutil.ignore_patterns("*.safetensors"))
        (other / "model.safetensors").symlink_to(base_model / "model.safetensors")
        tokenizer = json.loads((other / "tokenizer.json").read_text())
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": 49152, "content": "<|more|>"})
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        with pytest.raises(ConfigError, match="the teacher other has another tokenizer than the base model: let it"):
            plan(workspace, base_model, samples(), **{"teacher.model": str(other)})

    def test_a_crew_without_the_agent(self, workspace: Workspace, base_model: Path, tmp_path: Path) -> None:
        crew = crew_file(tmp_path, CREW.replace("workers.worker", "workers.clerk"))
        with pytest.raises(ConfigError, match="has no agent 'worker'; have clerk"):
            plan(workspace, base_model, samples(), **{"teacher.crew": crew})

    def test_rows_with_weights(self, workspace: Workspace, base_model: Path, tmp_path: Path) -> None:
        crew = crew_file(tmp_path, CREW + EXAMPLES)
        with pytest.raises(TrainingError, match="distillation gives each row the same weight, these have weights"):
            plan(workspace, base_model, samples(weight=2.0), **{"teacher.crew": crew})


def test_replies_are_as_long_as_the_rows_let_expect(workspace: Workspace, base_model: Path, tmp_path: Path) -> None:
    shown: dict[str, Any] = {"teacher.crew": crew_file(tmp_path, CREW + EXAMPLES)}
    told = plan(workspace, base_model, samples(), **shown)
    assert 8 <= told["trl.max_completion_length"] <= 24 and "trl.max_length" not in told
    assert plan(workspace, base_model, prompts(), **shown)["trl.max_completion_length"] == 256
    shown["trl.max_completion_length"] = 7
    assert plan(workspace, base_model, samples(), **shown)["trl.max_completion_length"] == 7


def test_another_prompt_of_the_teacher_is_another_job(workspace: Workspace, base_model: Path, tmp_path: Path) -> None:
    def digest() -> str:
        recipe = load_recipe("distill", {"teacher.crew": str(tmp_path / "crew.toml")})
        return recipe.bound("worker", "base", base_model, workspace).digest

    crew_file(tmp_path, CREW)
    first = digest()
    assert digest() == first
    crew_file(tmp_path, CREW + EXAMPLES)
    assert digest() != first


@pytest.mark.train
@pytest.mark.timeout(300)
def test_the_teacher_is_shown_its_own_prompt(workspace: Workspace, base_model: Path, tmp_path: Path) -> None:
    """A fresh adapter is the base model: nothing parts it from the base model in the same prompt, but examples do."""
    [same] = losses(workspace, base_model, samples(), **{"teacher.crew": crew_file(tmp_path, CREW)})
    [shown] = losses(workspace, base_model, samples(), **{"teacher.crew": crew_file(tmp_path, CREW + EXAMPLES)})
    assert same < 0.02 < 0.2 < shown


def first_token(base_model: Path, adapter: Path | None) -> Any:
    """Log-probabilities of a reply's first token to the first prompt."""
    import torch
    from peft import PeftModel

    from journeyman.training.methods.rows import read_tokenizer, write_prompt
    from journeyman.training.methods.trainers.weights import load_base

    model: Any = load_base(base_model, longest=64)
    model = model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
    prompt = write_prompt(samples()[0], read_tokenizer(base_model))
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([prompt])).logits[0, -1].float().log_softmax(-1)


def divergence(student: Any, teacher: Any) -> float:
    """The reverse KL divergence."""
    return float((student.exp() * (student - teacher)).sum())


@pytest.mark.train
@pytest.mark.timeout(300)
def test_a_larger_adapter_teaches_a_smaller_one(workspace: Workspace, base_model: Path) -> None:
    teach = {"trl.max_steps": 3, "trl.per_device_train_batch_size": 2, "trl.learning_rate": 2e-3}
    rows = samples()
    settings: dict[str, Any] = {"agent": "worker", "base_model": base_model, "workspace": workspace}
    teacher = train_adapter(rows, recipe=load_recipe("sft", teach), **settings)
    small = {"lora.r": 2, "lora.alpha": 4, "teacher.policy": teacher.policy, "trl.max_steps": 2}
    losses(workspace, base_model, prompts(), **small, **{"trl.learning_rate": 2e-3})
    student = load_adapter(workspace.adapters / "worker@2")
    assert (student.method, student.rank, student.start) == ("distill", 2, "base")
    taught, learned = (first_token(base_model, workspace.adapters / name) for name in ("worker@1", "worker@2"))
    assert divergence(learned, taught) < divergence(first_token(base_model, None), taught)
