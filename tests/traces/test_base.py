"""A mistake in a config is one line that says what is wrong, and which key may be meant."""

from collections.abc import Mapping
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from journeyman.traces.base import Config, parse_config
from journeyman.traces.errors import ConfigError


class Limits(Config):
    tokens: int = 1
    max_seconds: int = 1


class Worker(Config):
    goal: str = ""
    limits: Limits | None = None


class Firm(Config):
    workers: dict[str, Worker] = Field(default_factory=dict)
    rows: Annotated[tuple[Annotated[Worker, Field()], ...], Field(max_length=3)] = ()
    pair: tuple[int, Worker] | None = None
    by_name: Mapping[str, list[Limits]] = Field(default_factory=dict)
    options: dict[str, int] = Field(default_factory=dict)
    alias: str = Field(default="", alias="as")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"wokers": {}}, "unknown key 'wokers'; did you mean 'workers'?"),
        ({"zzz": 1}, "unknown key 'zzz'; there are: workers, rows, pair, by_name, options, as"),
        ({"workers": {"a": {"gaol": ""}}}, "unknown key 'workers.a.gaol'; did you mean 'goal'?"),
        (
            {"workers": {"a": {"limits": {"Tokens": 1}}}},
            "unknown key 'workers.a.limits.Tokens'; did you mean 'tokens'?",
        ),
        ({"rows": [{}, {"limits": {"seconds": 1}}]}, "'rows.1.limits.seconds'; did you mean 'max_seconds'?"),
        ({"pair": [1, {"xyz": 1}]}, "unknown key 'pair.1.xyz'; there are: goal, limits"),
        ({"by_name": {"a": [{"xyz": 1}]}}, "unknown key 'by_name.a.0.xyz'; there are: tokens, max_seconds"),
        ({"wokers": {}, "rows": 3}, "unknown key 'wokers'; did you mean 'workers'? (and 1 more)"),
        ({"rows": 3}, "firm: 'rows': write a list"),
    ],
)
def test_a_mistake_is_named_with_what_is_right(written: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(Firm, written, "firm")
    assert said in str(refused.value)


def test_a_key_of_somebody_else_may_be_meant_in_the_same_table_only() -> None:
    with pytest.raises(ConfigError, match="did you mean 'colour'"):
        parse_config(Firm, {"color": 1}, "firm", beside=["colour"])
    with pytest.raises(ConfigError, match=r"'workers\.a\.color'; there are: goal, limits$"):
        parse_config(Firm, {"workers": {"a": {"color": 1}}}, "firm", beside=["colour"])


def test_a_config_without_keys_takes_none() -> None:
    class Nothing(BaseModel, extra="forbid"):
        pass

    with pytest.raises(ConfigError, match=r"^none: unknown key 'a'$"):
        parse_config(Nothing, {"a": 1}, "none")
