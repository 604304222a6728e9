"""Held out: tasks of gate, test and vault, and runs of them, which nobody may learn from."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

from pydantic_core import from_json

from journeyman.runtime.config import TaskSet
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.redact import Redactor
from journeyman.traces.errors import ConfigError
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.leaks import SUB_QUESTIONS, Tie, Ties
from journeyman.training.data.tasks.near import plain
from journeyman.training.data.tasks.sets import workspace_sets

HELD_OUT: tuple[TaskSet, ...] = ("gate", "test", "vault")
_REASONS = {
    "equal": "a task of {}",
    "near": "near a task of {}",
    "sub-question": "shares a question with {}",
    "reference": "holds a reference of {}",
}

MOST_KNOWN = 2**18
"""Texts that are remembered by their digests, in some 50 MB."""


class HeldOut:
    """What is held out, and why a text may not be learned from."""

    def __init__(
        self, sets: Mapping[str, Sequence[Task]], near: float, recorded: Callable[[str], str] = lambda prompt: prompt
    ) -> None:
        """`near` as in `[tasks]` of `journeyman.toml`. `recorded` gives a prompt as it is recorded, with what is
        blacked out; held out is the task in both forms."""
        self.tasks = {name: len(tasks) for name, tasks in sets.items() if tasks}
        """How many tasks of each set."""
        both = [(name, form) for name, tasks in sets.items() for task in tasks for form in _forms(task, recorded)]
        self._set_of = [name for name, _ in both]
        tasks = [task for _, task in both]
        self._ids = {task.id: name for name, task in both}
        self._ties = Ties(tasks, near)
        self._known: dict[bytes, str | None] = {}

    @classmethod
    def of(cls, workspace: Workspace) -> "HeldOut":
        """The sets that the workspace names; raises `ConfigError` where one can't be read."""
        redactor = Redactor(workspace.config.traces.redact)
        near = workspace.config.tasks.near
        return cls(workspace_sets(workspace, HELD_OUT), near, lambda prompt: redactor.redact(prompt, set()))

    def __bool__(self) -> bool:
        return bool(self._set_of)

    def runs(self, store: TraceStore) -> dict[str, str]:
        """Why nothing of a run may be learned from, by trace id; the others are left out.

        A run tells its task as it ends. Of one that a crash ended only its task's id is known.
        """
        if not self:
            return {}
        rows = store.sql(
            f"""SELECT trace_id, named, task FROM (SELECT trace_id, min(task_id) AS named FROM spans GROUP BY trace_id)
            LEFT JOIN (SELECT trace_id, arg_max_null(attributes ->> '$."{a.TASK}"', end_ns) AS task FROM spans
                WHERE operation = 'invoke_workflow' GROUP BY trace_id) USING (trace_id)"""
        ).to_pylist()
        reasons = ((row["trace_id"], self._of_run(row["named"], row["task"])) for row in rows)
        return {trace_id: reason for trace_id, reason in reasons if reason is not None}

    def _of_run(self, task_id: str | None, written: str | None) -> str | None:
        if written is None or (task := _read_task(written)) is None:
            return f"a task of {self._ids[task_id]}" if task_id in self._ids else None
        return self._known_as("run", task.model_dump_json(), lambda: self.task(task))

    def messages(self, messages: Iterable[Mapping[str, Any]]) -> str | None:
        """Why a row with these messages may not be learned from, by what its users ask.

        A text that happens to stand in a reference too, such as a name in what a tool gave, is no reason.
        """
        if not self:
            return None
        asked = (message["content"] for message in messages if message["role"] == "user")
        return next((reason for text in asked if (reason := self._asked(text))), None)

    def texts(self, texts: Iterable[str]) -> str | None:
        """Why a row with these texts may not be learned from, whoever says them: one holds a question that is held out.

        Of a text that is JSON each text in it counts.
        """
        if not self:
            return None
        return next((reason for text in texts if (reason := self._held(text))), None)

    def task(self, task: Task) -> str | None:
        """Why nobody may learn from a task: it is one that is held out, or is tied to one."""
        return self._reason(self._ties.of(task), references=True) if self else None

    def _asked(self, text: str) -> str | None:
        ties = partial(self._ties.of, Task(id="", prompt=text))
        return self._known_as("asked", text, lambda: self._reason(ties(), references=False))

    def _held(self, text: str) -> str | None:
        ties = (self._ties.within(leaf) for leaf in _leaves(text))
        reasons = (self._reason(tied, references=False) for tied in ties)
        return self._known_as("held", text, lambda: next((reason for reason in reasons if reason is not None), None))

    def _known_as(self, how: str, text: str, find: Callable[[], str | None]) -> str | None:
        # Rows are looked at when they are mined and before they are written; to find what ties a text takes long.
        key = sha256(f"{how}:{text}".encode("utf-8", "replace")).digest()[:16]
        if key not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = find()
        return self._known[key]

    def _reason(self, ties: Mapping[int, Tie], references: bool) -> str | None:
        tied = [(position, tie) for position, tie in ties.items() if references or tie.kind != "reference"]
        if not tied:
            return None
        position, tie = min(tied, key=lambda tied: (_gravity(tied[1]), tied[0]))
        return _REASONS[tie.kind].format(self._set_of[position])


def less_held_out(
    workspace: Workspace, tasks: Sequence[Task], source: str, held_out: HeldOut | None = None
) -> tuple[list[Task], dict[str, int]]:
    """The tasks that agents may learn from, and how many they may not, by reason; raises `ConfigError` where that is
    none. `held_out` is by default what the workspace holds out."""
    known = HeldOut.of(workspace) if held_out is None else held_out
    reasons = {task.id: known.task(task) for task in tasks}
    counted = Counter(reason for reason in reasons.values() if reason is not None)
    if tasks and all(reasons.values()):
        told = ", ".join(f"{reason} ({count})" for reason, count in counted.most_common())
        raise ConfigError(
            f"{source}: nobody may learn from any task of it: {told}; take the tasks that "
            "`journeyman tasks split` sets apart for train"
        )
    return [task for task in tasks if reasons[task.id] is None], dict(counted.most_common())


def _read_task(written: str) -> Task | None:
    """What ties a recorded task to others; None where it was not recorded whole."""
    try:
        values = from_json(written)
    except ValueError:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("prompt"), str):
        return None
    metadata = values.get("metadata")
    questions = metadata.get(SUB_QUESTIONS) if isinstance(metadata, dict) else None
    texts = [text for text in questions if isinstance(text, str)] if isinstance(questions, list) else []
    return Task(id="", prompt=values["prompt"], reference=values.get("reference"), metadata={SUB_QUESTIONS: [*texts]})


def _leaves(text: str) -> Iterator[str]:
    """The texts in one that is JSON, where letters may be written as numbers; else itself."""
    waiting: list[Any] = [_parsed(text)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            yield value


def _parsed(text: str) -> Any:
    if text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        return from_json(text)
    except ValueError:
        return text


def _forms(task: Task, recorded: Callable[[str], str]) -> list[Task]:
    form = task.model_copy(update={"prompt": recorded(task.prompt)})
    return [task] if form.prompt == task.prompt else [task, form]


def _gravity(tie: Tie) -> int:
    return list(_REASONS).index(tie.kind)


NOTHING = HeldOut({}, 1.0)


def runs_of(store: TraceStore, tasks: Iterable[Task]) -> list[str]:
    """Ids of the traces whose task is one of these, by its prompt."""
    prompts = {plain(task.prompt) for task in tasks}
    rows = store.sql("SELECT trace_id, prompt FROM workflows WHERE prompt IS NOT NULL").to_pylist()
    return [row["trace_id"] for row in rows if plain(row["prompt"]) in prompts]
