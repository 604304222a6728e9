"""The options with which commands choose runs, and what they mean to the store."""

import math
import re
from time import time_ns
from typing import Annotated, Any

import typer

from journeyman.runtime.commands.moments import moment_ns
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Ending, Purpose

AgentOption = Annotated[str | None, typer.Option(help="Only runs in which this agent took part")]
PolicyOption = Annotated[
    list[str] | None, typer.Option(help="Only runs in which this policy was asked, e.g. worker@8; repeatable")
]
FamilyOption = Annotated[str | None, typer.Option(help="Only tasks of this family")]
StatusOption = Annotated[Ending | None, typer.Option(help="Only runs that ended so")]
PurposeOption = Annotated[Purpose | None, typer.Option(help="Only runs that were made for this")]
SessionOption = Annotated[str | None, typer.Option(help="Only runs of this session")]
UserOption = Annotated[str | None, typer.Option(help="Only runs of this user")]
CrewOption = Annotated[str | None, typer.Option("--of-crew", metavar="NAME", help="Only runs of the crew of this name")]
TaskSetOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only runs of tasks from the file of this name: tasks.train.jsonl")
]
LabelOption = Annotated[
    str | None, typer.Option(metavar="NAME[=VALUE]", help="Only runs labelled so: score, thumbs=true, 'score>=0.5'")
]
TextOption = Annotated[
    str | None, typer.Option(help="Only runs with this in a message, a goal, the task or the answer")
]
SinceOption = Annotated[str | None, typer.Option(metavar="TIME", help="Only runs begun since: 12h, 7d, or a date")]
UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="Only runs begun before")]


def conditions(
    *, label: str | None, since: str | None, until: str | None, policy: list[str] | None, **others: str | None
) -> dict[str, Any]:
    """What was asked for, as keyword arguments of `TraceStore.traces` and of `Scope`; raises `ConfigError`."""
    now_ns = time_ns()
    times = {"since_ns": since, "until_ns": until}
    return {
        **others,
        "policy": tuple(policy) if policy else None,
        **({} if label is None else _label(label)),
        **{name: moment_ns(text, now_ns=now_ns) for name, text in times.items() if text is not None},
    }


def label_value(text: str) -> bool | float | str:
    """What a user means by a label's value: true, false, a number, or a word."""
    if text in ("true", "false"):
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _label(text: str) -> dict[str, Any]:
    name, compared, value = re.fullmatch(r"(.*?)(?:(>=|=)(.*))?", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if not name:
        raise ConfigError(f"{text!r} names no label: give e.g. score, thumbs=true or 'score>=0.5'")
    if compared == "=":
        return {"label": name, "value": label_value(value)}
    if compared is None:
        return {"label": name}
    least = label_value(value)
    if isinstance(least, str):
        raise ConfigError(f"{text!r}: only a number can be the least, e.g. 'score>=0.5'")
    return {"label": name, "min_value": float(least)}
