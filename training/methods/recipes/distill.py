"""Distillation: an agent samples replies, and learns to give its teacher's distribution of each of their tokens.

TRL's DistillationTrainer does it. `trainers/distill.py` has the rows and what the teacher is shown.
"""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from journeyman.agents.crew_file import load_crew
from journeyman.agents.model import BASE
from journeyman.agents.prompt import PromptForm, prompt_form
from journeyman.runtime.adapters.adapter import find_adapter, load_adapter
from journeyman.runtime.serving.embedded import model_digest, pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Config, Record
from journeyman.traces.errors import ConfigError
from journeyman.training.data.samples import PromptSample, SFTSample
from journeyman.training.methods.recipe import TRLRecipe


class TeacherTable(Config):
    """Table `[teacher]`: whose distribution the agent learns to give. It runs in the training's own process."""

    policy: str | None = None
    """An adapter such as `clerk@2`, on the base model that is trained; None, or `base`, is that model itself."""
    model: str | None = None
    """Another model with the same tokenizer: a local folder, or a name as `server.model` takes it."""
    crew: str | None = None
    """A crew's file: the teacher is shown the agent's instructions and examples from there. None: what the agent is
    shown itself, which is never an example."""

    @model_validator(mode="after")
    def _one_teacher(self) -> Self:
        if self.policy is not None and self.model is not None:
            raise ValueError("there is one teacher: leave out policy or model")
        return self


class DistillRecipe(TRLRecipe):
    """How distillation trains an adapter. Its rows give prompts: of rows to imitate the replies aren't used."""

    trainer: ClassVar = "journeyman.training.methods.trainers.distill:Distill"
    learns_from: ClassVar = SFTSample
    also_from: ClassVar = (PromptSample,)
    starts_in_service: ClassVar = True
    reserved: ClassVar = {
        "teacher_model_name_or_path": "[teacher] names the teacher",
        "teacher_model_revision": "[teacher] names the teacher",
        "teacher_model_init_kwargs": "[teacher] names the teacher",
        "use_vllm": "replies are sampled in the training's own process",
        "vllm_mode": "replies are sampled in the training's own process",
        "chat_template_kwargs": "rows come as tokens",
        "max_tool_calling_iterations": "no tool is called in training",
        "log_completions": "replies aren't printed",
    }

    method: Literal["distill"] = "distill"
    """How the adapter learns."""
    teacher: TeacherTable = TeacherTable()

    def bound(self, agent: str, start: str, base_model: Path, workspace: Workspace) -> "BoundDistillRecipe":
        teacher = self.teacher
        form = None if teacher.crew is None else _form(Path(teacher.crew), agent)
        if teacher.model is not None:
            model = pull_model(teacher.model)
            return BoundDistillRecipe(**dict(self), known=Teacher(model=model, digest=model_digest(model), form=form))
        if form is None and start == (teacher.policy or BASE):
            raise ConfigError(
                f"recipe: the teacher is {start}, and so is the student that training starts from: name another with "
                "--set teacher.policy=ADAPTER or teacher.model=FOLDER, or show it more with teacher.crew=FILE"
            )
        return BoundDistillRecipe(**dict(self), known=_on_base(teacher.policy or BASE, base_model, workspace, form))


class Teacher(Record):
    """A teacher that was found."""

    model: Path = Field(exclude=True)
    """Folder of its model, or of its adapter's base model."""
    adapter: Path | None = Field(default=None, exclude=True)
    digest: str
    """Of its files, wherever they lie."""
    form: PromptForm | None = None
    """What its prompts begin with; None where they are the agent's."""


class BoundDistillRecipe(DistillRecipe):
    """The same, once its teacher was found: another teacher is another job."""

    known: Teacher


def _on_base(policy: str, base_model: Path, workspace: Workspace, form: PromptForm | None) -> Teacher:
    """A teacher of the base model that is trained."""
    digest = model_digest(base_model)
    if policy == BASE:
        return Teacher(model=base_model, digest=digest, form=form)
    folder = find_adapter(workspace.adapters, policy)
    adapter = load_adapter(folder)
    if adapter.base_digest != digest:
        raise ConfigError(
            f"the teacher {policy} is on base model {adapter.base_digest[:12]}, not on {digest[:12]}: take an adapter "
            "of the base model that is trained, or name a folder as teacher.model"
        )
    if adapter.is_prompt:
        raise ConfigError(
            f"the teacher {policy} is a prompt on the weights of {adapter.weights}: name those as teacher.policy, and "
            "show it the prompt with teacher.crew=FILE"
        )
    if adapter.is_model:
        return Teacher(model=folder, digest=adapter.digest, form=form)
    return Teacher(model=base_model, adapter=folder, digest=adapter.digest, form=form)


def _form(path: Path, agent: str) -> PromptForm:
    crew = load_crew(path)
    known = {one.name: one for one in crew.agents}
    if agent not in known:
        raise ConfigError(f"recipe: teacher.crew: {path} has no agent {agent!r}; have {', '.join(known)}")
    return prompt_form(known[agent], crew)
