"""A recipe's table `[trl]` beside TRL's own config: what can't work is told before anything is loaded."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

import torch
from pydantic import JsonValue, TypeAdapter, ValidationError
from transformers import Trainer, TrainingArguments, get_scheduler

from journeyman.traces.errors import ConfigError


def typed(config: type[Any], given: Mapping[str, JsonValue]) -> dict[str, Any]:
    """A recipe's table `[trl]`, once each value is of the type that TRL's `config` says; raises `ConfigError`."""
    hints = get_type_hints(config)
    known = {field.name: hints[field.name] for field in fields(config) if field.init}
    if unknown := given.keys() - known:
        raise ConfigError(
            f"recipe: unknown key {'trl.' + min(unknown)!r}: the table takes what TRL's {config.__name__} takes"
        )
    for key, value in given.items():
        try:
            TypeAdapter(known[key]).validate_python(value, strict=True)
        except ValidationError as error:
            raise ConfigError(f"recipe: trl.{key} = {json.dumps(value)}: {error.errors()[0]['msg']}") from None
    return dict(given)


def check_optimiser(arguments: TrainingArguments) -> None:
    """Raises `ConfigError` for what the library would only see at the first step."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    kwargs: Any = arguments.lr_scheduler_kwargs
    checks: Mapping[str, Callable[[], Any]] = {
        "optim_args": lambda: Trainer.get_optimizer_cls_and_kwargs(arguments),
        "lr_scheduler_kwargs": lambda: get_scheduler(arguments.lr_scheduler_type, optimiser, 0, 1, kwargs),
    }
    for key, check in checks.items():
        try:
            check()
        except (TypeError, ValueError) as error:
            raise ConfigError(f"recipe: trl.{key} can't be used: {str(error).splitlines()[0]}") from None
