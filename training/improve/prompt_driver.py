"""What `journeyman train --recipe prompt` makes: the search is announced with its price, made, and its find is told."""

from itertools import count

from journeyman.agents.crew_file import load_crew
from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.serving.embedded import model_digest
from journeyman.traces.errors import TrainingError
from journeyman.training.improve.from_tasks import TaskJob, TaskPlan, Watcher, choices_of
from journeyman.training.improve.prompting import Prompting
from journeyman.training.methods.recipes.prompt import PromptRecipe

SMALL_BYTES = 1_000_000_000
"""Of a base model's weights, below which it is said what may be expected of it as a writer of instructions."""


class PromptDriver:
    """A `Driver`: one agent's prompt is optimised on the job's tasks."""

    def __init__(self, job: TaskJob) -> None:
        from journeyman.runtime.serving.backend import open_backend  # langchain takes a second to import.

        recipe: PromptRecipe = job.recipe
        self._job = job
        self._table = recipe.prompt
        self._prompting = Prompting(
            job.workspace,
            load_crew(job.crew),
            job.agent,
            job.tasks,
            recipe,
            conditions=[job.crew.read_text(encoding="utf-8")],
            base_digest=model_digest(job.base_model),
            backend=lambda: open_backend(job.workspace),
            start=job.start,
            source=job.source,
            scorer=job.scorer,
        )

    def plan(self) -> TaskPlan:
        prompting, estimate = self._prompting, self._prompting.estimate
        basis = f"by {estimate.recorded} recorded runs" if estimate.recorded else "a rough guess: nothing is recorded"
        money = f" and {estimate.cost:,.4g} {self._job.workspace.config.traces.currency}" if estimate.cost else ""
        learn, select = len(prompting.learn), len(prompting.select)
        return TaskPlan(
            summary=f"a prompt of {self._job.agent} on the weights of {prompting.job.start}: {learn} tasks to learn "
            f"from, {select} to choose on, at most {self._table.metric_calls} scored runs, "
            f"about {estimate.tokens:,.0f} tokens{money} ({basis})",
            runs=self._table.metric_calls,
            tokens=estimate.tokens,
            choices=tuple(choices_of("prompt", self._table)),
        )

    def train(self, watcher: Watcher) -> Adapter:
        """Raises `TrainingError` where no prompt did better than the present one; nothing is written then."""
        for line in self._notes():
            watcher.say(line)
        made, most = count(1), self._table.metric_calls
        prompted = self._prompting.optimise(
            mlflow_uri=self._job.mlflow_uri,
            on_run=lambda episode: watcher.on_run(next(made), most),
            wait=self._job.wait,
            discard=self._job.discard,
            say=watcher.say,
        )
        search = prompted.search
        if prompted.adapter is None:
            raise TrainingError(
                f"of {search.tried} prompts none scored above the present one's {search.first_score:.3f} on "
                f"{search.tasks} tasks, so nothing was written: give more tasks, or raise prompt.metric_calls"
            )
        watcher.say(
            f"score {search.first_score:.3f} → {search.score:.3f} on the {search.tasks} tasks that it was chosen on, "
            f"the best of {search.tried} prompts after {search.metric_calls} scored runs; `journeyman gate "
            f"{prompted.adapter.policy}` tells what it is worth on others"
        )
        return prompted.adapter

    def _notes(self) -> list[str]:
        """What a user should know before it begins."""
        lines = [f"{tasks} tasks are left out: {reason}" for reason, tasks in self._prompting.passed_over.items()]
        reflect = self._table.reflect
        if reflect is None:
            return [*lines, "examples are chosen from the record; --reflect POLICY has instructions written, too"]
        size = sum(file.stat().st_size for file in self._job.base_model.glob("*.safetensors"))
        if size < SMALL_BYTES and (reflect == BASE or "@" in reflect):
            lines.append(
                f"{reflect} has weights of {size / 1e6:,.0f} MB: models so small can seldom say what was wrong; "
                "a larger one among [models] can, and examples need none"
            )
        return lines
