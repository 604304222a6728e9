"""The options with which `journeyman mine` chooses among rows, what they mean, and how what came of them is shown."""

import math
from typing import Annotated, Any, get_args

import typer
from rich.table import Table

from journeyman.runtime.console import out
from journeyman.traces.base import parse_config
from journeyman.traces.errors import ConfigError
from journeyman.training.data.choosing.caps import Cap
from journeyman.training.data.choosing.choose import ChooseConfig, Chosen
from journeyman.training.data.choosing.mix import FIELDS, Group

NearOption = Annotated[
    float | None,
    typer.Option(min=0.5, max=1, metavar="SHARE", help="Of rows that are this much alike keep one, e.g. 0.9"),
]
MaxTokensOption = Annotated[int | None, typer.Option(min=1, help="Leave out longer rows, prompt and reply together")]
MaxRowsOption = Annotated[int | None, typer.Option(min=1, help="Keep so many rows, chosen by their hash")]
CapOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD[:NAME]=N",
        help=f"At most N rows, or a share below 1, of each {', '.join(FIELDS)}, or of one; repeatable",
    ),
]
MixOption = Annotated[
    str | None,
    typer.Option(metavar="NAME=WEIGHT,…", help="Weigh rows by policy, by origin, or of the agent's own: own=0.5"),
]
BalanceOption = Annotated[
    str | None, typer.Option(metavar="FIELD", help=f"Weigh so that groups count alike: {', '.join(get_args(Group))}")
]
HardOption = Annotated[
    float | None, typer.Option(min=1, metavar="N", help="Weigh rows of tasks that rarely succeed up to N times as much")
]
OutliersOption = Annotated[
    float | None, typer.Option(metavar="N", help="Leave out scores N robust deviations off the median, e.g. 3.5")
]
NoInjectionsOption = Annotated[bool, typer.Option("--no-injections", help="Leave out rows with prompt injections")]
KeepSecretsOption = Annotated[bool, typer.Option("--keep-secrets", help="Keep rows with what looks like a key")]
SeedOption = Annotated[int, typer.Option(help="Another one makes --cap, --near and --max-rows choose other rows")]


def choose_config(*, mix: str | None, cap: list[str] | None, no_injections: bool, **others: Any) -> ChooseConfig:
    """What was asked for; raises `ConfigError`."""
    values = {
        "mix": {} if mix is None else _weights(mix),
        "caps": tuple(map(_cap, cap or ())),
        "injections": not no_injections,
        **others,
    }
    return parse_config(ChooseConfig, values, "choosing rows")


def show_chosen(chosen: Chosen) -> None:
    if chosen.left_out:
        table = Table("left out", "rows", box=None)
        for reason, count in chosen.left_out.items():
            table.add_row(reason, str(count))
        out.print(table)
    if chosen.weighed:
        table = Table("weighed by", "", "rows", "factor", box=None)
        for one in chosen.weighed:
            table.add_row(one.step, one.group, str(one.rows), f"{one.factor:.3g}")
        out.print(table)
    if chosen.held_out:
        sets = ", ".join(f"{name} {count}" for name, count in chosen.held_out.items())
        out.print(f"none of the rows written is of a held-out task ({sets})", markup=False)


def _weights(mix: str) -> dict[str, float]:
    weights = [_weight(text) for text in mix.split(",")]
    names = [name for name, _ in weights]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"--mix {mix}: {twice} has two weights; give each name one")
    return dict(weights)


def _weight(text: str) -> tuple[str, float]:
    name, _, written = text.strip().rpartition("=")
    weight = _number(written)
    if not name or weight is None or weight < 0:
        raise ConfigError(f"--mix {text.strip()}: a weight is a number from 0 on; write e.g. teacher=1,own=0.5")
    return name, weight


def _cap(text: str) -> Cap:
    group, _, written = text.strip().rpartition("=")
    field, _, name = group.partition(":")
    most = _number(written)
    if field not in FIELDS:
        raise ConfigError(f"--cap {text}: there is no such field to cap; have {', '.join(FIELDS)}, as in family=200")
    if most is None or most <= 0 or (most > 1 and most != int(most)):
        raise ConfigError(f"--cap {text}: write how many rows may stay, as in 200, or a share below 1, as in 0.1")
    limit = {"share": most} if most < 1 else {"rows": int(most)}
    return parse_config(Cap, {"field": field, "name": name or None, **limit}, f"--cap {text}")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
