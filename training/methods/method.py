"""A method: what the class does that a recipe's `trainer` names, loaded late because it needs torch, and kept quiet."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from journeyman.runtime import variables
from journeyman.traces.errors import ConfigError
from journeyman.training.methods.checkpoints import Checkpoint
from journeyman.training.methods.earlier import Earlier
from journeyman.training.methods.plan import Fitted, Plan, Trial
from journeyman.training.methods.recipe import OnStep, Recipe

ENVIRONMENT = {
    variables.OFFLINE: "1",
    # Threads that spin while they wait make training five times slower beside a model server on the same cores.
    variables.WAIT_POLICY: "PASSIVE",
}
"""What the libraries read when they are first imported, unless the user has set it."""


OnPlan = Callable[[Plan], None]
"""Called with what is planned, before the base model is loaded."""


class Method(Protocol):
    """The class that a recipe's `trainer` names; its samples are those that the recipe learns from."""

    def fit(
        self,
        samples: Sequence[Any],
        recipe: Any,
        base_model: Path,
        folder: Path,
        checkpoint: Checkpoint | None,
        on_step: OnStep,
        *,
        start: Path | None,
        earlier: Earlier,
        on_plan: OnPlan,
    ) -> Fitted:
        """Trains by a recipe of the method's own kind, from `checkpoint` where there is one.

        Else it goes on from the adapter in `start`, or starts from the base model. The weights go into
        `folder/adapter`, checkpoints into `folder/checkpoints`. `earlier` has rows only where the recipe heeds
        `guard.replay`.
        """
        ...

    def plan(self, samples: Sequence[Any], recipe: Any, base_model: Path, earlier: Earlier) -> Plan:
        """What `fit` would do."""
        ...

    def attempt(
        self,
        samples: Sequence[Any],
        recipe: Any,
        base_model: Path,
        folder: Path,
        start: Path | None,
        earlier: Earlier,
    ) -> Trial:
        """The plan, and what a step of it takes, tried in `folder`."""
        ...


@contextmanager
def method_of(recipe: Recipe) -> Iterator[Method]:
    """The recipe's method, as long as its libraries are to be silent."""
    with _quiet():
        try:
            with _environment():
                module, _, name = recipe.trainer.partition(":")
                method = cast("Method", getattr(import_module(module), name)())
        except ImportError as error:
            raise ConfigError(f"training needs {error.name}: pip install 'journeyman[train]'") from None
        yield method


@contextmanager
def _environment() -> Iterator[None]:
    """Sets `ENVIRONMENT` for the imports within; a server that is started later must not inherit it."""
    added = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what libraries say of their own business away from the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
