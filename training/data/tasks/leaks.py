"""Leaks: tasks of different sets that a model could know from each other."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.near import Texts, plain

SUB_QUESTIONS = "sub_questions"
"""Key of a task's `metadata`: texts of the questions that it takes, where somebody wrote them down."""
LEAST = 20
"""Letters of a text that is looked for in prompts: shorter ones stand in many by chance."""

Kind = Literal["equal", "near", "sub-question", "reference"]
"""How two tasks are tied, the gravest first.

`equal`, `near`: the prompts. `sub-question`: a prompt, or a sub-question, of one stands in one of the other's.
`reference`: the reference of one, where it is a text, stands in the other's prompt or sub-question.
"""


class Tie(Record):
    """Why whoever learned from one task knows something of the other."""

    kind: Kind
    similarity: float | None = None
    """Of near prompts, 0..1."""


class Ties:
    """Tasks, and what ties others to them. Neither order nor chance plays a part."""

    def __init__(self, tasks: Sequence[Task], near: float) -> None:
        """`near` is the least similarity of near prompts, as in `[tasks]` of `journeyman.toml`."""
        self._near = near
        self._prompts = Texts(plain(task.prompt) for task in tasks)
        self._questions = _Filed(tasks, _questions)
        self._references = _Filed(tasks, _references)

    def of(self, task: Task) -> dict[int, Tie]:
        """The tasks that are tied to this one, by position, each by its gravest tie; it may be one of them."""
        prompt, *_ = questions = _questions(task)
        ties = {position: Tie(kind="reference") for position in self._by_reference(task, questions)}
        ties |= {position: Tie(kind="sub-question") for position in self._by_question(questions)}
        for position, similarity in self._prompts.near(prompt, self._near):
            equal = self._prompts.texts[position] == prompt
            ties[position] = Tie(kind="equal") if equal else Tie(kind="near", similarity=similarity)
        return ties

    def within(self, text: str) -> dict[int, Tie]:
        """The tasks whose prompt, or one near it, or a sub-question is asked in a text, by position."""
        ties = {position: Tie(kind="sub-question") for position in self._questions.within(plain(text))}
        near = self._prompts.near(plain(text), self._near)
        return ties | {position: Tie(kind="near", similarity=similarity) for position, similarity in near}

    def _by_question(self, questions: Sequence[str]) -> Iterator[int]:
        for text in questions:
            yield from self._questions.holding(text)
            yield from self._questions.within(text)

    def _by_reference(self, task: Task, questions: Sequence[str]) -> Iterator[int]:
        for text in _references(task):
            yield from self._questions.holding(text)
        for text in questions:
            yield from self._references.within(text)


class _Filed:
    """Texts of tasks, found as `Texts` finds them, unless one is too short to tell anything; of each its task."""

    def __init__(self, tasks: Sequence[Task], texts_of: Callable[[Task], Iterable[str]]) -> None:
        filed = [(text, position) for position, task in enumerate(tasks) for text in texts_of(task)]
        self._texts = Texts(text for text, _ in filed)
        self._tasks = [position for _, position in filed]

    def holding(self, text: str) -> Iterator[int]:
        return (self._tasks[at] for at in self._texts.holding(text) if _tells(text, self._texts.texts[at]))

    def within(self, text: str) -> Iterator[int]:
        return (self._tasks[at] for at in self._texts.within(text) if _tells(self._texts.texts[at], text))


def _tells(text: str, of: str) -> bool:
    return len(text) >= LEAST or text == of


def _questions(task: Task) -> list[str]:
    """The prompt, then the sub-questions."""
    return [plain(task.prompt), *map(plain, sub_questions(task))]


def sub_questions(task: Task) -> list[str]:
    """Those that somebody wrote down; raises `ConfigError` for what is no list of texts."""
    written = task.metadata.get(SUB_QUESTIONS, [])
    if not isinstance(written, list) or not all(isinstance(text, str) for text in written):
        raise ConfigError(
            f'task {task.id!r}: metadata.{SUB_QUESTIONS} isn\'t a list of texts: write one, as in ["Who?"]'
        )
    return [text for text in written if isinstance(text, str) and plain(text)]


def _references(task: Task) -> list[str]:
    """The reference where it is a text, such as a query: names in a list stand in many prompts."""
    text = plain(task.reference) if isinstance(task.reference, str) else ""
    return [text] if len(text) >= LEAST else []


class Side(Record):
    """A task of a pair."""

    set: str
    id: str
    prompt: str


class Leak(Record):
    """Two tasks of different sets that are tied."""

    kind: Kind
    similarity: float | None
    first: Side
    second: Side


def find_leaks(sets: Mapping[str, Sequence[Task]], near: float) -> list[Leak]:
    """Every pair of tasks of two of the sets that is tied, the gravest kind first; sets in the order given."""
    names, leaks = list(sets), list[Leak]()
    for number, name in enumerate(names[:-1]):
        others = [(other, task) for other in names[number + 1 :] for task in sets[other]]
        ties = Ties([task for _, task in others], near)
        for task in sets[name]:
            leaks += [_leak(tie, (name, task), others[position]) for position, tie in sorted(ties.of(task).items())]
    return sorted(leaks, key=lambda leak: (get_args(Kind).index(leak.kind), -(leak.similarity or 0)))


def _leak(tie: Tie, *sides: tuple[str, Task]) -> Leak:
    first, second = (Side(set=name, id=task.id, prompt=task.prompt) for name, task in sides)
    return Leak(kind=tie.kind, similarity=tie.similarity, first=first, second=second)
