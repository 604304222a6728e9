"""The source of rows: whose turns are wanted, of which runs, and what may not be learned from."""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, cast

from pydantic import Field

from journeyman.agents.prompt import PromptForm
from journeyman.traces.base import Config
from journeyman.traces.storage.conditions import Conditions
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Ending
from journeyman.training.data.admission import DEFAULT, Learnable
from journeyman.training.data.corpus import Corpus
from journeyman.training.data.credit import Credits
from journeyman.training.data.tasks.heldout import NOTHING, HeldOut

_OF_RUNS = (
    *("family", "status", "session", "user", "crew", "task_set"),
    *("value", "min_value", "text", "since_ns", "until_ns"),
)


class MineConfig(Config):
    """Which turns are wanted. Those of another policy, family or purpose are passed over; all others are mined or
    refused."""

    label: str = "score"
    """The label of a trace that `min_score` is compared with."""
    min_score: float | None = Field(default=None, allow_inf_nan=False)
    """Smallest value of the label, true counting as 1; None takes every trace, labelled or not. Of pairs it is the
    better side's; kinds that tell good from bad draw the line there, by default at 1."""
    policy: tuple[str, ...] | None = None
    """Only turns that were asked of one of these, e.g. `teacher`; `person` for the replies that people corrected. Of
    pairs it is the better side's."""
    family: str | None = None
    """Only tasks of this family; this and what follows is about the run, as for `traces list`."""
    status: Ending | None = None
    session: str | None = None
    user: str | None = None
    crew: str | None = None
    task_set: str | None = None
    labelled: str | None = None
    """Only runs with a label of this name, its newest one being `value` or at least `min_value`, if those are given."""
    value: bool | float | str | None = None
    min_value: float | None = None
    text: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    purposes: tuple[Learnable, ...] = DEFAULT
    """Only runs that were made for one of these. One that was made to measure is refused, whatever is asked for."""

    def takes(self, policy: str | None) -> bool:
        """Whether rows of that policy are wanted."""
        return self.policy is None or policy in self.policy

    @property
    def runs(self) -> Conditions:
        """What the runs must meet."""
        conditions = {name: getattr(self, name) for name in _OF_RUNS}
        return cast(Conditions, conditions | {"label": self.labelled})


SOLVED = 1.0
"""Partial credit doesn't count as good, unless `min_score` says so."""


class Scored(NamedTuple):
    """What is said of a run."""

    score: float | None
    """None where the label is no number."""
    source: str
    source_type: str


class Source(NamedTuple):
    """What every kind of rows is mined from."""

    store: TraceStore
    agent: str
    config: MineConfig
    ids: Collection[str] | None = None
    """Of these traces only."""
    held_out: HeldOut = NOTHING
    """Tasks that are never learned from."""
    evaluated: Collection[str] = ()
    """Runs that were measured before runs said themselves what they are for."""
    form: PromptForm | None = None
    """How the agent is addressed now; by default, as in its newest run that may be learned from."""
    on_turn: Callable[[str], None] = lambda trace_id: None
    """Is told the trace of each turn that is looked at."""
    left_out: Mapping[str, str] = MappingProxyType({})
    """By trace id, runs whose replies are not to be imitated, in rows of SFT, and why."""
    corpus: Corpus | None = None
    """Texts that aren't in the record, for rows of kind `documents`."""
    credit: Credits | None = None
    """What each model call was worth, where rows are chosen and weighed by that."""

    def wanted(self, policy: Sequence[str] | None) -> Conditions:
        """Of the turns that are looked at, `policy` being those of which one was asked."""
        return {**self.config.runs, "agent": self.agent, "policy": policy, "ids": self.ids}

    def credit_refusal(self, span_id: str) -> str | None:
        return None if self.credit is None else self.credit.refusal(span_id)

    @property
    def threshold(self) -> float:
        """From which value of the label on a run counts as good, for kinds of rows that tell good from bad."""
        return SOLVED if self.config.min_score is None else self.config.min_score

    def scores(self) -> dict[str, float | None]:
        """The newest value of the label on each whole trace that has one, None where it is no number."""
        return {trace_id: scored.score for trace_id, scored in self.scored().items()}

    def scored(self) -> dict[str, Scored]:
        """The same, and who stated it."""
        rows = self.store.sql(
            """SELECT trace_id, arg_max_null(number, at_ns) AS score, arg_max(source, at_ns) AS source,
                arg_max(source_type, at_ns) AS source_type
            FROM labels WHERE name = ? AND span_id IS NULL GROUP BY trace_id""",
            [self.config.label],
        )
        names = ("trace_id", "score", "source", "source_type")
        columns = [rows[name].to_pylist() for name in names]
        return {trace_id: Scored(*values) for trace_id, *values in zip(*columns, strict=True)}
