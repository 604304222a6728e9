"""The plan of a training: what is learned from, for how long, and every number with where it is from and why."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from math import ceil
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from pydantic import JsonValue

from journeyman.runtime.adapters.adapter import Drift, OldRows, Probe
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError
from journeyman.training.methods.recipe import Pace, Recipe, Rule

HELD_OUT_SHARE = 0.1
HELD_OUT_FROM = 60
"""Rows from which some are held out: of fewer, each is worth more to learn from."""
HELD_OUT_MOST = 64
"""Rows that are held out at most: their loss is computed again and again."""

BATCH = 8
BATCH_TOKENS = 4096
"""Tokens of a batch that is computed in one piece; memory grows with them."""
REPLAY = 0.2
"""Share of the rows learned from that are replayed, where the recipe leaves it open."""
NOTHING_BEFORE = "no dataset was learned from before"
STEPS = 100
"""Steps that a small dataset is repeated for."""
PIECE, PIECES = "trl.per_device_train_batch_size", "trl.gradient_accumulation_steps"
"""Rows that are computed in one piece, and such pieces of a step."""
LOOKED_AT = "trl.per_device_eval_batch_size"
EVERY = 50
"""Most steps between two evaluations, and two checkpoints: so many are lost to a kill."""

_RATES = ((0.5e9, 1e-3), (3e9, 5e-4), (float("inf"), 2e-4))
"""Learning rates of LoRA by the base model's parameters."""
_CHECKPOINTING = 1e9
"""Parameters from which activations are computed twice to save memory."""


class Facts(NamedTuple):
    """What the numbers follow from."""

    rows: int
    """Rows that are learned from."""
    held_out: int
    longest: int
    """Tokens of the longest row."""
    parameters: int
    """Of the base model."""
    replayed: int = 0
    """Rows among `rows` that are of earlier datasets."""
    measured: int = 0
    """Rows of earlier datasets whose loss is measured before and after."""
    earlier: str = ""
    """Of which datasets, and what of them can't be used."""


class Choice(Record):
    """One number of a training."""

    key: str
    value: JsonValue
    source: Literal["recipe", "rule", "TRL"]
    """`rule`: it follows from the rows and the model, because the recipe leaves it open."""
    why: str


class Plan(Record):
    rows: int
    held_out: int
    """Rows whose loss says when to stop; nothing is learned from them."""
    replayed: int = 0
    """Rows among `rows` that are of earlier datasets."""
    measured: int = 0
    """Rows of earlier datasets whose loss is measured before and after."""
    batch: int
    """Rows of an optimiser step."""
    epoch_steps: int
    """Steps in which each row is seen once; the last one of them may have fewer rows."""
    steps: int
    """Steps at most; training may stop earlier where rows are held out."""
    choices: tuple[Choice, ...]
    ran_out: int | None = None
    """Rows that were computed in one piece when memory ran out."""

    @property
    def epochs(self) -> float:
        return self.steps / self.epoch_steps

    @property
    def trl(self) -> dict[str, Any]:
        """What the recipe and the rules say to TRL."""
        told = [choice for choice in self.choices if choice.key.startswith("trl.") and choice.source != "TRL"]
        return {choice.key.removeprefix("trl."): choice.value for choice in told}

    def pieces(self, processes: int) -> dict[str, int]:
        """How each of so many processes computes its share of a step; raises `ConfigError` where it has none."""
        piece, pieces = self._number(PIECE), self._number(PIECES)
        if pieces % processes == 0:
            pieces //= processes
        elif piece % processes == 0:
            piece //= processes
        else:
            raise ConfigError(
                f"a step of {self.batch} rows can't be divided among {processes} processes: "
                f"set {PIECE} to a multiple of {processes}"
            )
        return {PIECE.removeprefix("trl."): piece, PIECES.removeprefix("trl."): pieces}

    def in_smaller_pieces(self) -> "Plan | None":
        """The same steps, each computed in smaller pieces; None where a piece is one row already."""
        piece = self._number(PIECE)
        parts = next((parts for parts in range(2, piece + 1) if piece % parts == 0), None)
        if parts is None:
            return None
        smaller = {PIECE: piece // parts, PIECES: self._number(PIECES) * parts, LOOKED_AT: piece // parts}
        why = f"memory ran out with {piece} rows in one piece"
        choices = tuple(
            choice.model_copy(update={"value": smaller[choice.key], "source": "rule", "why": why})
            if choice.key in smaller
            else choice
            for choice in self.choices
        )
        return self.model_copy(update={"choices": choices, "ran_out": piece})

    def _number(self, key: str) -> int:
        return next(int(str(choice.value)) for choice in self.choices if choice.key == key)

    def __str__(self) -> str:
        rows, steps = _counted(self.rows, "row"), _counted(self.steps, "step")
        again = f", {_counted(self.replayed, 'replayed row')} among them" if self.replayed else ""
        old = f", {_counted(self.measured, 'old row')} measured before and after" if self.measured else ""
        ran_out = "" if self.ran_out is None else f", in pieces of {_counted(self._number(PIECE), 'row')} {self._why()}"
        return f"{self.epochs:.1f} epochs of {rows}{again}, {steps}{self._aside()}{old}{ran_out}"

    def _why(self) -> str:
        return f"because memory ran out with {self.ran_out}"

    def _aside(self) -> str:
        if self.held_out:
            return f", {_counted(self.held_out, 'row')} held out to stop early"
        share = next(choice.value for choice in self.choices if choice.key == "eval.share")
        return ", no row held out: every run has more rows than eval.share allows" if share else ""


class Trial(Record):
    """A plan, and what a step of it takes on this machine."""

    plan: Plan
    step_seconds: float
    peak_mb: float
    """Largest memory of the process; of the GPU where there is one."""

    @property
    def seconds(self) -> float:
        """Of all the steps, without looks at held-out rows."""
        return self.plan.steps * self.step_seconds


class Fitted(Record):
    """What came of a training."""

    seconds: float
    """Spent in training, those before a kill included."""
    probe: Probe
    steps: int
    epochs: float
    eval_loss: float | None
    """Loss of the held-out rows, of the checkpoint that was kept; None where none were held out."""
    old: OldRows | None = None
    """What became of rows of earlier datasets; None where there are none."""
    drift: Drift | None = None
    """From the base model; None where the method can't tell."""
    metrics: Mapping[str, float] = {}
    """What else the method says of the end of the training, by name."""


class _Sourced(Protocol):
    @property
    def source(self) -> str:
        """What rows have in common that are held out together."""
        ...


S = TypeVar("S", bound=_Sourced)


def hold_out(samples: Sequence[S], recipe: Recipe) -> tuple[list[S], list[S]]:
    """The samples to learn from, and those held out; all of one run are on one side, by a hash of its trace id."""
    return set_aside(samples, min(round(_share(recipe, len(samples)) * len(samples)), HELD_OUT_MOST))


def set_aside(samples: Sequence[S], wanted: int) -> tuple[list[S], list[S]]:
    """Those to learn from, and up to `wanted` others: whole runs by the hash of their trace ids, where they fit."""
    runs: dict[str, int] = {}
    for sample in samples:
        runs[sample.source] = runs.get(sample.source, 0) + 1
    aside, rows = set[str](), 0
    for source in sorted(runs, key=lambda source: sha256(source.encode()).digest()):
        if rows + runs[source] <= wanted:
            aside.add(source)
            rows += runs[source]
    learned = [sample for sample in samples if sample.source not in aside]
    return learned, [sample for sample in samples if sample.source in aside]


def plan_training(
    recipe: Recipe, given: Mapping[str, Any], facts: Facts, theirs: Mapping[str, Any], own: Sequence[Rule] = ()
) -> Plan:
    """`given` is the recipe's table `[trl]`, `theirs` are the defaults of TRL that a reader wants to know.

    `own` are the rules of the recipe's method.
    """
    rules = _Rules(given, facts, recipe.pace)
    left = [
        Choice(key=f"trl.{key}", value=value, source="rule", why=why)
        for key, value, why in [*rules.values(), *own]
        if key not in given
    ]
    choices = [*_told(recipe, given, facts), *left]
    known = {choice.key for choice in choices}
    choices += [
        Choice(key=f"trl.{name}", value=value, source="TRL", why="TRL's default")
        for name, value in theirs.items()
        if f"trl.{name}" not in known
    ]
    return Plan(
        rows=facts.rows,
        held_out=facts.held_out,
        replayed=facts.replayed,
        measured=facts.measured,
        batch=rules.batch,
        epoch_steps=rules.epoch_steps,
        steps=rules.steps,
        choices=tuple(choices),
    )


def _told(recipe: Recipe, given: Mapping[str, Any], facts: Facts) -> list[Choice]:
    told = {**recipe.told, **{f"trl.{name}": value for name, value in given.items()}}
    if recipe.eval.share is not None:
        told["eval.share"] = recipe.eval.share
    if facts.held_out:
        told["eval.patience"] = recipe.eval.patience
    choices = [Choice(key=key, value=value, source="recipe", why="the recipe says so") for key, value in told.items()]
    if recipe.eval.share is None:
        share = _share(recipe, facts.rows - facts.replayed + facts.held_out)
        why = f"a tenth of {HELD_OUT_FROM} rows or more, unless trl.max_steps says how long"
        choices.append(Choice(key="eval.share", value=share, source="rule", why=why))
    return [*choices, *_guards(recipe, facts)]


def _guards(recipe: Recipe, facts: Facts) -> Iterator[Choice]:
    """What is set against forgetting, by the recipe or because something was learned before."""
    given = recipe.guard.model_fields_set
    why = {
        "replay": f"{_counted(facts.replayed, 'row')} of {facts.earlier}" if facts.earlier else NOTHING_BEFORE,
        "worst": f"{_counted(facts.measured, 'old row')} measured before and after"
        if facts.measured
        else NOTHING_BEFORE,
        "kl": "another forward pass a step, without gradients, tells how far the learner is from its start",
    }
    by_rule = {"replay": bool(facts.earlier), "worst": bool(facts.measured), "kl": False}
    for key, value in recipe.guard.model_dump().items():
        if key in given or by_rule[key]:
            value = REPLAY if value is None else value
            yield Choice(key=f"guard.{key}", value=value, source="recipe" if key in given else "rule", why=why[key])


def _share(recipe: Recipe, rows: int) -> float:
    """Of the rows, held out."""
    if recipe.eval.share is not None:
        return recipe.eval.share
    fixed = getattr(recipe, "trl", {}).get("max_steps", -1) > 0
    return HELD_OUT_SHARE if rows >= HELD_OUT_FROM and not fixed else 0.0


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class _Rules:
    """The numbers that a recipe leaves open."""

    def __init__(self, given: Mapping[str, Any], facts: Facts, pace: Pace) -> None:
        self._given = given
        self._facts = facts
        self._pace = pace
        fitting = max(pace.piece, min(BATCH, BATCH_TOKENS // (facts.longest * pace.sequences)))
        self._piece = int(given.get("per_device_train_batch_size") or fitting)
        pieces = 1 if "per_device_train_batch_size" in given else ceil(BATCH / self._piece)
        self._pieces = int(given.get("gradient_accumulation_steps") or pieces)
        self.batch = self._piece * self._pieces
        """Rows of an optimiser step."""
        self.epoch_steps = epoch = ceil(ceil(facts.rows / self._piece) / self._pieces)
        least, most = pace.epochs
        often = min(most, max(least, ceil(STEPS / epoch)))
        self._epochs = float(given.get("num_train_epochs", often))
        self._limit = int(given.get("max_steps", -1))
        self.steps = self._limit if self._limit > 0 else ceil(self._epochs * epoch)
        self._every = int(given.get("save_steps") or max(1, min(EVERY, epoch // 2 if facts.held_out else EVERY)))

    def values(self) -> list[Rule]:
        facts, values = self._facts, list[Rule]()
        millions = facts.parameters / 1e6
        rate = next(rate for most, rate in _RATES if facts.parameters < most)
        small = facts.parameters < _CHECKPOINTING
        if self._limit <= 0:
            least, most = self._pace.epochs
            why = f"at least {least}, and more for few rows, until there are {STEPS} steps; {most} at most"
            values.append(("num_train_epochs", self._epochs, why))
        values += [
            (
                "learning_rate",
                rate * self._pace.rate,
                f"LoRA on a model of {millions:,.0f} M parameters; the smaller, the higher{self._pace.why}",
            ),
            (
                "per_device_train_batch_size",
                self._piece,
                f"rows have up to {facts.longest} tokens; memory follows them",
            ),
            ("gradient_accumulation_steps", self._pieces, f"a step is about {BATCH} rows"),
            ("max_length", facts.longest, "the longest row: nothing is cut"),
            (
                "gradient_checkpointing",
                not small,
                f"it saves memory for a fifth more time: {'no' if small else 'much'} "
                f"need at {millions:,.0f} M parameters",
            ),
            ("save_steps", self._every, "a kill loses at most so many steps"),
            ("seed", 0, "the same job gives the same adapter"),
        ]
        if facts.held_out:
            values += [
                ("eval_steps", self._every, "held-out rows are looked at where a checkpoint is saved"),
                ("per_device_eval_batch_size", self._piece, "as in training"),
            ]
        return values
