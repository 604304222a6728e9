"""Routing: which assignments go to a small and which to a large model, by rules or by a classifier.

Rules are asked first, in their order, then a function, then the classifier that `journeyman train-router` wrote; where
none of them says anything, the agent has its own policy. Whatever is said is a `Route`, for the record.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self, cast
from zlib import crc32

from pydantic import Field, ValidationError, field_validator, model_validator

from journeyman.agents.agent import Agent
from journeyman.traces.base import Config, Record
from journeyman.traces.errors import ConfigError
from journeyman.traces.imports import imported
from journeyman.traces.trace import Task

Size = Literal["small", "large"]
Chooser = Callable[[Agent, str, Task], Size | None]

BUCKETS = 2**15
"""Places that words are hashed to."""


class Rule(Config):
    """A row of `[[routing.rules]]`: it fits where everything that it names does."""

    to: Size
    """Which model gets the assignment."""
    agent: str | None = None
    """Of the assignment."""
    family: str | None = None
    """Of the task."""
    goal: str | None = None
    """A regular expression that is searched for in the assignment's goal, in any case of letters."""
    min_words: int | None = Field(default=None, ge=0)
    """Fewest words of the goal."""
    max_words: int | None = Field(default=None, ge=0)
    """Most words of the goal."""

    @field_validator("goal")
    @classmethod
    def _pattern(cls, goal: str | None) -> str | None:
        try:
            re.compile(goal or "")
        except re.error as error:
            raise ValueError(f"{goal!r} isn't a regular expression: {error}") from None
        return goal

    def fits(self, agent: Agent, goal: str, task: Task) -> bool:
        words = len(goal.split())
        return (
            self.agent in (None, agent.name)
            and self.family in (None, task.family)
            and (self.min_words or 0) <= words
            and (self.max_words is None or words <= self.max_words)
            and (self.goal is None or re.search(self.goal, goal, re.IGNORECASE) is not None)
        )


class RoutingConfig(Config):
    """Table `[routing]`: who answers what is easy, who what is hard, and how one tells."""

    large: str
    """Policy for what is hard, such as one of `[models]`."""
    small: str | None = None
    """Policy for the rest; None for the agent's own, an adapter in service among them."""
    agents: tuple[str, ...] = ()
    """Agents that are routed; empty for all."""
    rules: tuple[Rule, ...] = ()
    """The first one that fits counts."""
    function: str | None = None
    """`module:function` that is given the agent, the goal and the task, and says `small`, `large` or None."""
    classifier: bool = False
    """Whether the classifier that `journeyman train-router` wrote is asked where nothing else fits."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Least chance of success with which the classifier leaves an assignment to the small model."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.rules or self.function or self.classifier):
            raise ValueError("nothing chooses: give rules, a function, or classifier = true")
        return self

    def leaves_nothing(self, agent: str) -> bool:
        """Whether all that the agent does goes to `small` or `large`, so that its own policy is never asked."""
        return self.classifier and self.small is not None and self.routes(agent)

    def routes(self, agent: str) -> bool:
        return not self.agents or agent in self.agents


class Route(Record):
    """One decision, as it stands in the trace."""

    size: Size
    policy: str | None
    """None for the agent's own."""
    reason: str
    score: float | None = None
    """Where the classifier chose: the chance it gives the small model, 0..1."""

    def __str__(self) -> str:
        score = "" if self.score is None else f" {self.score:.2f}"
        return f"routed to {self.size}: {self.reason}{score}"


class Classifier(Record):
    """Logistic regression on hashed words: how likely the small model is to succeed. It holds no text."""

    version: int = 1
    buckets: int = BUCKETS
    intercept: float
    weights: dict[int, float]
    """By bucket; the others are 0."""
    rows: int
    """Assignments that it was trained on."""
    held_out: int
    """Assignments that it was tested on, of other tasks."""
    accuracy: float
    """Share of those that it was right about, at a threshold of 0.5."""
    majority: float
    """Share that would be right if it always said what was more frequent in training."""

    def score(self, agent: str, goal: str, family: str) -> float:
        """Chance that the small model succeeds, 0..1."""
        said = self.intercept + sum(
            value * self.weights.get(bucket, 0.0)
            for bucket, value in features(agent, goal, family, self.buckets).items()
        )
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, said))))


class Router:
    """Chooses a policy for an agent's assignment; equal questions get equal answers."""

    def __init__(self, config: RoutingConfig, classifier: Classifier | None = None) -> None:
        if config.classifier and classifier is None:
            raise ConfigError("[routing] classifier = true, but none was trained: journeyman train-router does that")
        self._config = config
        self._function = None if config.function is None else _load(config.function)
        self._classifier = classifier if config.classifier else None

    @classmethod
    def open(cls, config: RoutingConfig, path: Path) -> Self:
        """`path` is where the workspace has its classifier; raises `ConfigError`."""
        return cls(config, read_classifier(path) if config.classifier and path.exists() else None)

    def choose(self, agent: Agent, goal: str, task: Task) -> Route | None:
        """None where the agent isn't routed, or nothing speaks for either model."""
        if agent.model is not None or not self._config.routes(agent.name):
            return None
        return (
            self._by_rule(agent, goal, task)
            or self._by_function(agent, goal, task)
            or self._by_score(agent, goal, task)
        )

    def _by_rule(self, agent: Agent, goal: str, task: Task) -> Route | None:
        for number, rule in enumerate(self._config.rules, start=1):
            if rule.fits(agent, goal, task):
                return self._route(rule.to, f"rule {number}")
        return None

    def _by_function(self, agent: Agent, goal: str, task: Task) -> Route | None:
        if self._function is None:
            return None
        try:
            said = self._function(agent, goal, task)
        except Exception as error:  # Somebody else's code: a route is a saving, never a reason to fail.
            return self._route("small", f"{self._config.function} failed: {type(error).__name__}: {error}")
        if said is None:
            return None
        if said not in ("small", "large"):
            return self._route("small", f"{self._config.function} said {said!r}, not small or large")
        return self._route(said, str(self._config.function))

    def _by_score(self, agent: Agent, goal: str, task: Task) -> Route | None:
        if self._classifier is None:
            return None
        score = self._classifier.score(agent.name, goal, task.family)
        size: Size = "small" if score >= self._config.threshold else "large"
        return self._route(size, "classifier", score)

    def _route(self, size: Size, reason: str, score: float | None = None) -> Route:
        policy = self._config.small if size == "small" else self._config.large
        return Route(size=size, policy=policy, reason=reason, score=score)


def features(agent: str, goal: str, family: str, buckets: int = BUCKETS) -> dict[int, float]:
    """What the classifier sees: words and pairs of words, together of length 1, and who works on what."""
    words = re.findall(r"\w+", goal.lower())
    counts = Counter(_bucket(text, buckets) for text in _grams(words))
    length = math.sqrt(sum(count * count for count in counts.values())) or 1.0
    found = {bucket: count / length for bucket, count in counts.items()}
    # Of lengths only the order of magnitude: 5 words, or 50.
    for named in (f"agent={agent}", f"family={family}", f"length={len(words).bit_length()}"):
        bucket = _bucket(named, buckets)
        found[bucket] = found.get(bucket, 0.0) + 1.0
    return found


def read_classifier(path: Path) -> Classifier:
    """Raises `ConfigError` where the file isn't one that `journeyman train-router` wrote."""
    try:
        return Classifier.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise ConfigError(f"{path} isn't a classifier: `journeyman train-router` writes one") from None


def _grams(words: list[str]) -> Iterator[str]:
    yield from words
    yield from (f"{first} {second}" for first, second in pairwise(words))


def _bucket(text: str, buckets: int) -> int:
    return crc32(text.encode(errors="replace")) % buckets


def _load(name: str) -> Chooser:
    found = imported(name, "[routing] function")
    if not callable(found):
        raise ConfigError(f"[routing] function {name!r} is a {type(found).__name__}, not a function")
    return cast("Chooser", found)
