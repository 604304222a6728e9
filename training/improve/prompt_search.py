"""The search for a prompt: GEPA's optimiser on our crew (Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution").

GEPA keeps a front of prompts, takes one of them and some tasks, has a part of it rewritten, and keeps the new one if it
does better on these tasks. What it needs of a system is an adapter: how a prompt scores, and how it is rewritten. Ours
has two parts to rewrite. `instructions` are written by a reflecting model from the runs and what the scorer said.
`examples` are chosen from recorded work by chance, so they need none.

The same seed gives the same search. So one that was killed is made again: what was scored and written is on the disk,
and costs nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from journeyman.agents.prompt import Prompt
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, JourneymanError
from journeyman.traces.files import RowFile, is_torn
from journeyman.traces.messages import Message
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Task
from journeyman.training.data.samples import SFTSample
from journeyman.training.evaluation.evaluate import Episode
from journeyman.training.improve.worked import examples_of, tokens_of
from journeyman.training.methods.recipes.prompt import PromptTable

INSTRUCTIONS, EXAMPLES = "instructions", "examples"
OWN = -1
"""Stands for the examples that the search began with."""

MOST_SHOWN = 400
"""Characters of a text that the reflecting model is shown."""

Scored = Callable[[Prompt, Sequence[Task]], list[Episode]]
"""Runs the crew on tasks with a prompt in the agent's place; an episode a task, in their order."""
Reflect = Callable[[str], str]
"""What a model writes when it is asked that."""


class Trial(Record):
    """A prompt that was scored on all the tasks that prompts are chosen on."""

    prompt: Prompt
    score: float
    """Mean over those tasks."""


class Found(NamedTuple):
    best: Trial
    first: Trial
    """What the search began with."""
    tried: int
    """Prompts that were scored on all those tasks."""
    metric_calls: int


class PromptSearch:
    """GEPA's adapter: its engine calls `evaluate`, `make_reflective_dataset` and `propose_new_texts`."""

    def __init__(
        self,
        table: PromptTable,
        agent: str,
        first: Prompt,
        worked: Sequence[SFTSample],
        store: TraceStore,
        scored: Scored,
        reflect: Reflect | None,
    ) -> None:
        self._table = table
        self._agent = agent
        self._first = first
        self._worked = worked
        self._store = store
        self._scored = scored
        self._reflect = reflect
        self._proposals = 0
        self._failure: JourneymanError | None = None

    def find(self, learn: Sequence[Task], select: Sequence[Task]) -> Found:
        """The best prompt on `select`, rewritten by what `learn` shows; raises what the runs raise."""
        optimize = _gepa()
        result = optimize(
            seed_candidate=self._parts(),
            trainset=list(learn),
            valset=list(select),
            adapter=self,
            reflection_minibatch_size=min(self._table.minibatch, len(learn)),
            stop_callbacks=self._is_over(least=len(select) + 2 * self._table.minibatch),
            seed=self._table.seed,
            logger=_Silent(),
        )
        if self._failure is not None:
            raise self._failure
        scores = result.val_aggregate_scores
        best = max(range(len(scores)), key=lambda index: (scores[index], -index))
        trials = [Trial(prompt=self.prompt(result.candidates[i]), score=scores[i]) for i in (best, 0)]
        return Found(trials[0], trials[1], len(scores), result.total_metric_calls or 0)

    def evaluate(self, batch: list[Task], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        from gepa.core.adapter import EvaluationBatch

        episodes = self._scored(self.prompt(candidate), batch)
        seen = list(zip(batch, episodes, strict=True)) if capture_traces else None
        return EvaluationBatch(outputs=episodes, scores=[one.score for one in episodes], trajectories=seen)

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """For instructions, what the agent was given and said in each run, and what came of it; for examples, which
        tasks it was."""
        seen: list[tuple[Task, Episode]] = eval_batch.trajectories
        runs: dict[str, list[Mapping[str, Any]]] = {}
        if INSTRUCTIONS in components_to_update:
            runs[INSTRUCTIONS] = [told for task, episode in seen for told in self._told(task, episode)]
        if EXAMPLES in components_to_update:
            runs[EXAMPLES] = [{"task": task.prompt} for task, _ in seen]
        return runs

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        self._proposals += 1
        try:
            return {
                name: text
                for name in components_to_update
                if (text := self._rewritten(name, candidate, reflective_dataset.get(name, ()))) != candidate[name]
            }
        except JourneymanError as error:  # GEPA would go on without a word.
            self._failure = error
            return {}

    def prompt(self, candidate: Mapping[str, str]) -> Prompt:
        """The parts of a candidate as an agent is told them."""
        update: dict[str, Any] = {}
        if INSTRUCTIONS in candidate:
            update["instructions"] = candidate[INSTRUCTIONS]
        if EXAMPLES in candidate:
            update["examples"] = self._shown(json.loads(candidate[EXAMPLES]))
        return self._first.model_copy(update=update)

    def _is_over(self, *, least: int) -> Callable[[Any], bool]:
        """A new prompt takes at least so many runs, and the budget holds; beyond a perfect one there is nothing."""

        def is_over(state: Any) -> bool:
            spent = state.total_num_evals + least > self._table.metric_calls
            return spent or self._failure is not None or max(state.program_full_scores_val_set) >= 1.0

        return is_over

    def _parts(self) -> dict[str, str]:
        parts = {} if self._reflect is None else {INSTRUCTIONS: self._first.instructions}
        if self._table.examples and self._worked:
            parts[EXAMPLES] = json.dumps([OWN] if self._first.examples else [])
        return parts

    def _shown(self, numbers: Sequence[int]) -> tuple[Any, ...]:
        pieces = (self._first.examples if i == OWN else examples_of(self._worked[i]) for i in numbers)
        return tuple(example for piece in pieces for example in piece)

    def _rewritten(self, name: str, candidate: Mapping[str, str], runs: Sequence[Mapping[str, Any]]) -> str:
        if name == EXAMPLES:
            return json.dumps(self._drawn(json.loads(candidate[EXAMPLES]), {str(run["task"]) for run in runs}))
        from gepa.strategies.instruction_proposal import InstructionProposalSignature

        assert self._reflect is not None
        if not runs:
            return candidate[name]
        asked = InstructionProposalSignature.prompt_renderer(
            {"current_instruction_doc": candidate[name], "dataset_with_feedback": runs, "prompt_template": None}
        )
        said = InstructionProposalSignature.output_extractor(self._reflect(str(asked)))
        return str(said["new_instruction"]).strip() or candidate[name]

    def _drawn(self, now: Sequence[int], tasks: set[str]) -> list[int]:
        """Other examples: `now` with one piece of work more, or in another's place, or less; none of it from `tasks`.

        As many as `examples` allows, and no more tokens than it says.
        """
        table, draw = self._table, Random(f"{self._table.seed}:{self._proposals}")
        others = [
            number
            for number, row in enumerate(self._worked)
            if number not in now and not any(message.content in tasks for message in row.messages)
        ]
        kept = [number for number in now if number != OWN or draw.random() < 0.5]
        if kept and (len(kept) >= table.examples or not others or draw.random() < 0.25):
            kept.remove(draw.choice(kept))
        draw.shuffle(others)
        for number in others:
            if len(kept) < table.examples and tokens_of(self._shown([*kept, number])) <= table.example_tokens:
                kept.append(number)
                if draw.random() < 0.5:
                    break
        return kept

    def _told(self, task: Task, episode: Episode) -> list[Mapping[str, Any]]:
        """Each piece of the agent's work in a run, with the scorer's word on the run."""
        trace = self._store.get(episode.trace_id)
        feedback = f"The score of the whole task is {episode.score:.2f} of 1."
        if task.reference is not None and episode.score < 1:
            feedback += f" The right answer of the task is: {_cut(json.dumps(task.reference, ensure_ascii=False))}."
        told: list[Mapping[str, Any]] = []
        for trajectory in trace.trajectories:
            if trajectory.agent == self._agent and trajectory.turns:
                said = [turn.response.content for turn in trajectory.turns if turn.response is not None]
                results = [result.content for turn in trajectory.turns for result in turn.tool_results]
                ended = "" if trajectory.status == "ok" else f" Its work {trajectory.status}: {trajectory.error}."
                told.append(
                    {
                        "Inputs": _cut(trajectory.goal or task.prompt),
                        "Generated Outputs": [_cut(text) for text in said],
                        "Tool Results": [_cut(text) for text in results],
                        "Feedback": feedback + ended,
                    }
                )
        return told


class Reflections:
    """What a model wrote, kept in a file, so that it is asked once."""

    def __init__(self, path: Path, ask: Callable[[tuple[Message, ...], int], str]) -> None:
        """`ask` is given messages and the number of the call, which varies the seed."""
        self._path = path
        self._ask = ask
        self._known = [json.loads(line) for line in RowFile(path) if not is_torn(line)]
        self._given = 0

    def __call__(self, prompt: str) -> str:
        number, self._given = self._given, self._given + 1
        if number < len(self._known) and self._known[number]["asked"] == prompt:
            return str(self._known[number]["said"])
        said = self._ask((Message(role="user", content=prompt),), number)
        row = {"asked": prompt, "said": said}
        RowFile(self._path).append(json.dumps(row).encode() + b"\n")
        return said


class _Silent:
    def log(self, message: str) -> None:
        """GEPA's own account of the search; ours is the record."""


def _gepa() -> Callable[..., Any]:
    try:
        from gepa.api import optimize
    except ImportError:
        raise ConfigError("the search for prompts needs GEPA: pip install 'journeyman[prompt]'") from None
    return optimize


def _cut(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
