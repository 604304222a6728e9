"""Training of the router's classifier: recorded assignments of the small model, and whether they turned out well.

An assignment turned out well where its agent ended `ok` and its score, its own or its run's, is high enough. One that
ended `ok` and was never scored says nothing, nor does one that was cancelled or blocked, whose server failed, or that
several policies answered. Tasks of gate, test and vault are held out: a router that knew them would make the next
measurement worthless.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from pydantic import Field

from journeyman.runtime.models.routing import BUCKETS, Classifier, features
from journeyman.traces import attributes as a
from journeyman.traces.base import Config, Record
from journeyman.traces.errors import ModelFailure, TrainingError
from journeyman.traces.files import write_whole
from journeyman.traces.storage.store import TraceStore
from journeyman.training.data.tasks.heldout import NOTHING, HeldOut

HELD_OUT = 20
"""Of a hundred tasks so many are for the test only."""

LEAST = 20
"""Fewest assignments to test on."""


class RouterConfig(Config):
    """Which assignments are learned from."""

    label: str = "score"
    """The label that tells how an assignment, or its run, turned out."""
    min_score: float = Field(default=1.0, allow_inf_nan=False)
    """Smallest value of the label that counts as success, true counting as 1."""
    agents: tuple[str, ...] = ()
    """Only assignments of these; empty for all agents."""
    policies: tuple[str, ...] = ()
    """The policies that are the small model; empty for all but `large`."""
    large: str | None = None
    """The large model's policy: its assignments say nothing of the small one."""


class Tried(Record):
    """An assignment that the small model had."""

    task: str
    agent: str
    goal: str
    family: str
    good: bool


def find_tried(store: TraceStore, config: RouterConfig, held_out: HeldOut = NOTHING) -> list[Tried]:
    """Assignments that say something of the small model, oldest first; none from the runs of tasks held out."""
    rows = store.sql(QUERY, [config.label, config.min_score]).to_pylist()
    refused = held_out.runs(store)
    return [
        Tried(**{name: row[name] for name in Tried.model_fields})
        for row in rows
        if row["trace_id"] not in refused and _wanted(row, config)
    ]


def train_router(tried: Sequence[Tried]) -> Classifier:
    """A classifier, and how it did on tasks that it was not trained on; raises `TrainingError` for too few of them.

    What shares a goal with a held-out assignment is left out of training. The same rows give the same classifier.
    """
    tested = [one for one in tried if _is_held_out(one.task)]
    goals = {(one.agent, one.goal) for one in tested}
    learned = [one for one in tried if not _is_held_out(one.task) and (one.agent, one.goal) not in goals]
    _check_enough(learned, tested)
    intercept, weights = _fit(learned)
    often = sum(one.good for one in learned) * 2 >= len(learned)
    untested = Classifier(
        intercept=intercept, weights=weights, rows=len(learned), held_out=len(tested), accuracy=0.0, majority=0.0
    )
    right = [(untested.score(one.agent, one.goal, one.family) >= 0.5) == one.good for one in tested]
    majority = [one.good == often for one in tested]
    update = {"accuracy": sum(right) / len(tested), "majority": sum(majority) / len(tested)}
    return untested.model_copy(update=update)


def write_router(classifier: Classifier, path: Path) -> None:
    write_whole(path, classifier.model_dump_json())


OUTAGES = (*get_args(ModelFailure), "ModelError")
"""`error.type` of a model call that brought nothing; the last one in records that do not say why."""

QUERY = f"""
WITH scores AS (
    SELECT trace_id, span_id, arg_max_null(number, at_ns) AS score FROM labels WHERE name = ? GROUP BY ALL
), answered AS (
    SELECT trace_id, trajectory_id, min(policy) AS policy FROM turns
    GROUP BY ALL HAVING min(policy) = max(policy) AND NOT bool_or(demonstration)
        AND NOT bool_or(coalesce(error_type IN {OUTAGES}, false))
), prompts AS (
    SELECT trace_id, any_value(prompt) AS prompt FROM workflows GROUP BY trace_id
)
SELECT traces.trace_id, coalesce(traces.task_id, traces.trace_id) AS task, trajectories.agent,
    coalesce(trajectories.goal, prompts.prompt) AS goal, coalesce(traces.family, 'default') AS family,
    answered.policy, trajectories.status = 'ok' AND coalesce(own.score, whole.score) >= ? AS good
FROM trajectories
JOIN answered ON answered.trace_id = trajectories.trace_id AND answered.trajectory_id = trajectories.span_id
JOIN traces ON traces.trace_id = trajectories.trace_id
LEFT JOIN prompts ON prompts.trace_id = trajectories.trace_id
LEFT JOIN scores AS own ON own.trace_id = trajectories.trace_id AND own.span_id = trajectories.span_id
LEFT JOIN scores AS whole ON whole.trace_id = trajectories.trace_id AND whole.span_id IS NULL
WHERE trajectories.status IN ('failed', 'timeout', 'truncated')
    OR trajectories.status = 'ok' AND coalesce(own.score, whole.score) IS NOT NULL
ORDER BY trajectories.started_ns, trajectories.trace_id, trajectories.span_id
"""


def _wanted(row: Mapping[str, Any], config: RouterConfig) -> bool:
    goal, policy = row["goal"], row["policy"]
    if not goal or goal.startswith(a.DIGEST_ONLY) or (config.agents and row["agent"] not in config.agents):
        return False
    return policy in config.policies if config.policies else policy != config.large


def _is_held_out(task: str) -> bool:
    return int(sha256(task.encode(errors="replace")).hexdigest()[:8], 16) % 100 < HELD_OUT


def _check_enough(learned: Sequence[Tried], tested: Sequence[Tried]) -> None:
    good = sum(one.good for one in learned)
    if len(tested) < LEAST or not 0 < good < len(learned):
        raise TrainingError(
            f"{len(learned)} assignments to learn from ({good} turned out well) and {len(tested)} to test on: it takes "
            f"good and bad ones, and at least {LEAST} to test on; run and label more tasks with the small model"
        )


def _fit(learned: Sequence[Tried]) -> tuple[float, dict[int, float]]:
    """Intercept, and the weight of each bucket that is not 0."""
    try:
        import numpy as np
        from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    except ImportError:
        raise TrainingError('scikit-learn is not installed: pip install "journeyman[routing]"') from None
    rows = [features(tried.agent, tried.goal, tried.family) for tried in learned]
    starts = np.cumsum([0, *map(len, rows)])
    values, buckets = (list(chain.from_iterable(part)) for part in (map(dict.values, rows), rows))
    matrix = csr_matrix((values, buckets, starts), shape=(len(rows), BUCKETS))
    model = LogisticRegression(max_iter=1000).fit(matrix, [tried.good for tried in learned])
    (weights,) = model.coef_
    return float(model.intercept_[0]), {int(bucket): float(weights[bucket]) for bucket in weights.nonzero()[0]}
