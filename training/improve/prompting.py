"""Prompting: one agent's prompt is optimised on tasks, and the best one becomes a candidate like any adapter."""

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from random import Random
from time import perf_counter, time_ns
from typing import TYPE_CHECKING

from pydantic import JsonValue

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import BASE, ModelRequest
from journeyman.agents.prompt import Prompt, prompt_form
from journeyman.runtime.adapters.adapter import Adapter, adapter_digests, split_policy
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.live import current_policies
from journeyman.runtime.adapters.prompts import read_prompts, weights_of
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.traces.files import publish, write_whole
from journeyman.traces.messages import Message
from journeyman.traces.trace import Task, digest_tasks
from journeyman.training.data.datasets.card import Profile, Provenance, write_card
from journeyman.training.data.datasets.shelf import KnownDataset, open_dataset
from journeyman.training.data.samples import SFTSample, dataset_file_name, read_samples, sample_line, write_lines
from journeyman.training.data.tasks.heldout import less_held_out
from journeyman.training.evaluation.bench import Bench, answered_by
from journeyman.training.evaluation.evaluate import Episode
from journeyman.training.improve.prompt_job import (
    Prompted,
    PromptJob,
    Search,
    known_candidate,
    write_candidate,
)
from journeyman.training.improve.prompt_search import Found, PromptSearch, Reflect, Reflections
from journeyman.training.improve.spending import Estimate, estimate
from journeyman.training.improve.teach import SCORER, check_references
from journeyman.training.improve.worked import Shelf, find_worked
from journeyman.training.methods.checkpoints import partial_of, reserve
from journeyman.training.methods.recipes.prompt import PromptRecipe
from journeyman.training.tracking import track
from journeyman.training.trainings.stopping import Say
from journeyman.training.trainings.trainings import training_lock

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend

OFFERED = "offered.json"
"""In the folder of an unfinished search: the dataset that examples are chosen from."""


class Prompting:
    """A crew, tasks and a recipe, ready to begin: what can be checked before is checked when it is made."""

    def __init__(
        self,
        workspace: Workspace,
        crew: Crew,
        agent: str,
        tasks: Sequence[Task],
        recipe: PromptRecipe,
        *,
        conditions: Sequence[JsonValue],
        base_digest: str,
        backend: "Callable[[], Backend]",
        start: str | None = None,
        source: str = "",
        scorer: str = SCORER,
    ) -> None:
        """`conditions` are the crew's, and `backend` is asked late, as for a `Bench`.

        `start` names the weights, by default those of the policy in service; `source` says where the tasks are from.
        Tasks that nobody may learn from are left out. Raises `ConfigError` or `AdapterError`.
        """
        self.crew = crew
        self._conditions = conditions
        self._workspace = workspace
        self._agent = _find_agent(self.crew, agent)
        self._recipe = recipe
        self._open = backend
        self._source = source
        self._scorer = scorer
        self.tasks, self.passed_over = less_held_out(workspace, tasks, source)
        """What is learned from, and how many tasks aren't, by reason."""
        check_references(self.tasks, scorer, source)
        self.learn, self.select = _split(self.tasks, recipe, source)
        if recipe.prompt.reflect is not None:
            workspace.config.check_policy(recipe.prompt.reflect)
        parent = Journal(workspace.journal).in_service(agent)
        weights = weights_of(workspace.adapters, parent if start is None else start)
        if weights != BASE and split_policy(weights)[0] != agent:
            raise ConfigError(f"{weights} isn't an adapter of {agent}: a prompt stands on its own agent's weights")
        self.job = PromptJob(
            agent=agent,
            parent=parent,
            start=weights,
            start_digest=adapter_digests(workspace.adapters, [weights]).get(weights),
            base_digest=base_digest,
            crew_digest=sha256(json.dumps(conditions).encode()).hexdigest(),
            tasks_digest=digest_tasks(self.tasks),
            scorer=scorer,
            recipe_digest=recipe.digest,
        )

    @cached_property
    def _backend(self) -> "Backend":
        return self._open()

    @cached_property
    def estimate(self) -> Estimate:
        """What the scored runs are likely to cost at most; those of reflection come on top."""
        return estimate(
            self._workspace.store,
            self.crew,
            self.tasks,
            current_policies(self._workspace),
            self._workspace.config.traces.prices,
            runs=self._recipe.prompt.metric_calls,
        )

    @cached_property
    def first(self) -> Prompt:
        """What the agent is told now: by the prompt candidate in service, else by the crew's file."""
        job = self.job
        now = read_prompts(self._workspace.adapters, [job.parent]).get(job.parent)
        words = self._agent if now is None else now
        # An adapter is not shown the crew's examples, so that its first prompt is the one that it has in service.
        examples = words.examples if now is not None or job.start == BASE else ()
        return Prompt(
            weights=job.start, weights_digest=job.start_digest, instructions=words.instructions, examples=examples
        )

    def optimise(
        self,
        *,
        mlflow_uri: str | None = None,
        on_run: Callable[[Episode], None] = lambda episode: None,
        wait: bool = False,
        discard: bool = False,
        say: Say = lambda line: None,
    ) -> Prompted:
        """Looks for a better prompt; the candidate of the same job is returned as it is.

        A search that was killed goes on: no run that was scored is made again, and no instruction written again.
        For `wait` and `discard` see `train_adapter`. Raises `ServerError` where the server fails, and `TrainingError`
        where there is nothing to change.
        """
        adapters = self._workspace.adapters
        with training_lock(self._workspace, wait=wait, say=say):
            if (known := known_candidate(adapters, self.job)) is not None:
                return known
            policy = reserve(adapters, self.job.agent, self.job.model_dump_json(), None, discard=discard, say=say)
            partial = partial_of(adapters, policy)
            told = self.job.model_dump(exclude_none=True)
            began = perf_counter()
            with track(mlflow_uri, partial, policy=policy, job=told, recipe=self._recipe.model_dump()) as run:
                dataset = self._offered(partial)
                worked = read_samples(dataset.path, SFTSample) if dataset is not None else []
                trials = _Trials(self, policy, on_run)
                reflect = self._reflect(partial)
                finding = PromptSearch(
                    *(self._recipe.prompt, self.job.agent, self.first, worked),
                    *(self._workspace.store, trials.scored, reflect),
                )
                found = finding.find(self.learn, self.select)
                run.step(0, {"score": found.first.score})
                run.step(found.metric_calls, {"score": found.best.score})
                search = Search(
                    job=self.job,
                    metric_calls=found.metric_calls,
                    tried=found.tried,
                    tasks=len(self.select),
                    first_score=found.first.score,
                    score=found.best.score,
                )
                adapter = None
                if search.score > search.first_score:
                    adapter = self._candidate(policy, found, dataset, perf_counter() - began)
                    adapter = write_candidate(partial / "adapter", adapter, found.best.prompt, search)
                    publish(partial / "adapter", adapters / policy)
                    run.finish(adapter)
                else:
                    run.end("FINISHED")
            shutil.rmtree(partial, ignore_errors=True)
            return Prompted(adapter=adapter, search=search, offered=len(worked))

    def bench(self, tasks: Sequence[Task]) -> Bench:
        """The runs of some of the tasks, which agents may learn from; none is made twice."""
        return Bench(
            self._workspace,
            self.crew,
            tasks,
            self._scorer,
            backend=lambda: self._backend,
            conditions=[*self._conditions, *answered_by(self._workspace, self._backend)],
            source=self._source,
            purpose="rollout",
            concurrency=self._recipe.prompt.concurrency,
            seed=self._recipe.prompt.seed,
        )

    def trial(self, policy: str, prompt: Prompt) -> PolicyTable:
        """What is in service, with that prompt for the agent, under the name of `policy`."""
        table = current_policies(self._workspace)
        digest = sha256(prompt.model_dump_json().encode()).hexdigest()
        update = {
            "agents": {**table.agents, self.job.agent: policy},
            "digests": {**table.digests, policy: digest},
            "prompts": {**table.prompts, policy: prompt},
        }
        return table.model_copy(update=update)

    def _offered(self, partial: Path) -> KnownDataset | None:
        """The dataset that examples are chosen from, as it was when the search began; None where nothing may be."""
        record = partial / OFFERED
        if not record.exists():
            shelf = self._worked()
            path = None if not shelf.rows else self._shelved(shelf)
            write_whole(record, json.dumps({"dataset": path and str(path), "refused": shelf.refused}))
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["dataset"] is not None:
            return open_dataset(self._workspace, known["dataset"])
        if self._recipe.prompt.reflect is None:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in known["refused"].items())
            raise TrainingError(
                f"no work of {self.job.agent} in a good run of these tasks is recorded"
                f"{f': {reasons}' if reasons else ''}; run `journeyman teach` on them, or name a policy with --reflect"
            )
        return None

    def _worked(self) -> Shelf:
        table = self._recipe.prompt
        if not table.examples:
            return Shelf((), {})
        return find_worked(self._workspace, self.crew, self._agent, self.learn, self.first, table.min_score)

    def _shelved(self, shelf: Shelf) -> Path:
        """The rows as a dataset of the workspace, so that lineage and deletions find them."""
        profile, agent = Profile(), self.job.agent
        made = Provenance.now(self._workspace, {"agent": agent, "kind": "sft", "for": "prompt", "tasks": self._source})
        return write_lines(
            profile.over(map(sample_line, shelf.rows)),
            self._workspace.datasets,
            lambda digest: dataset_file_name(agent, digest),
            lambda file: write_card(
                profile.card(file.digest, made, turns=len(shelf.rows), refused=shelf.refused), file.path
            ),
        ).path

    def _reflect(self, partial: Path) -> Reflect | None:
        table = self._recipe.prompt
        if table.reflect is None:
            return None
        policy = weights_of(self._workspace.adapters, table.reflect)

        def ask(messages: tuple[Message, ...], number: int) -> str:
            request = ModelRequest(
                policy=policy,
                messages=messages,
                max_tokens=table.reflect_tokens,
                temperature=table.temperature,
                seed=table.seed + number,
            )
            return asyncio.run(self._answer(request))

        return Reflections(partial / "reflections.jsonl", ask)

    async def _answer(self, request: ModelRequest) -> str:
        try:
            return (await self._backend.models[request.policy].complete(request)).content
        finally:
            await self._backend.models.aclose()

    def _candidate(self, policy: str, found: Found, dataset: KnownDataset | None, seconds: float) -> Adapter:
        job, (_, number) = self.job, split_policy(policy)
        return Adapter(
            agent=job.agent,
            number=number,
            base_digest=job.base_digest,
            digest="",
            parent=job.parent,
            start=job.start,
            start_digest=job.start_digest,
            method="prompt",
            dataset_digest=job.tasks_digest if dataset is None else dataset.digest,
            rows=len(self.tasks) if dataset is None else dataset.card.rows,
            prompt_form=prompt_form(self._agent, self.crew, found.best.prompt).digest,
            recipe_digest=job.recipe_digest,
            rank=0,
            train_seconds=round(seconds, 3),
            created_ns=time_ns(),
        )


class _Trials:
    """Prompts on their way to be scored, each under a name of its own: `lookup@3.7` is the seventh of the search for
    `lookup@3`."""

    def __init__(self, prompting: Prompting, policy: str, on_run: Callable[[Episode], None]) -> None:
        self._prompting = prompting
        self._policy = policy
        self._on_run = on_run
        self._numbers: dict[Prompt, int] = {}

    def scored(self, prompt: Prompt, tasks: Sequence[Task]) -> list[Episode]:
        number = self._numbers.setdefault(prompt, len(self._numbers) + 1)
        table = self._prompting.trial(f"{self._policy}.{number}", prompt)
        return self._prompting.bench(tasks).episodes(table, on_episode=self._on_run)


def _find_agent(crew: Crew, name: str) -> Agent:
    agent = next((agent for agent in crew.agents if agent.name == name), None)
    if agent is None:
        raise ConfigError(f"crew {crew.name!r} has no agent {name!r}; it has: {', '.join(a.name for a in crew.agents)}")
    if agent.model is not None:
        raise ConfigError(f"the crew gives {name!r} the model {agent.model!r}: a candidate would never be asked")
    return agent


def _split(tasks: Sequence[Task], recipe: PromptRecipe, source: str) -> tuple[list[Task], list[Task]]:
    """Those that prompts are written by, and those that they are chosen on."""
    table = recipe.prompt
    ordered = sorted(tasks, key=lambda task: task.id)
    Random(table.seed).shuffle(ordered)
    chosen_on = max(1, round(table.selection * len(ordered)))
    if len(ordered) - chosen_on < 1:
        raise ConfigError(f"{source}: {len(ordered)} tasks can't be split to learn from and to choose on; give more")
    least = 2 * chosen_on + 2 * table.minibatch
    if table.metric_calls < least:
        raise ConfigError(
            f"prompt.metric_calls is {table.metric_calls}: one new prompt on {chosen_on} tasks takes {least} runs; "
            "raise it, or lower prompt.selection"
        )
    return ordered[chosen_on:], ordered[:chosen_on]
