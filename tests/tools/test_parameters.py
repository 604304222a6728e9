"""What a tool takes is what its function says, and what a model cannot write is told when the tool is made."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, Field

from journeyman.tools.call import call_tool
from journeyman.tools.context import ToolContext
from journeyman.tools.tool import Tool, tool
from journeyman.traces.errors import ConfigError


async def test_bounds_and_descriptions_of_annotated_parameters_hold() -> None:
    @tool
    def seats(count: Annotated[int, Field(ge=1, description="how many")]) -> str:
        return f"{count} seats"

    assert seats.parameters["properties"]["count"] == {
        "description": "how many",
        "minimum": 1,
        "title": "Count",
        "type": "integer",
    }
    assert (await call_tool(seats, {"count": 2})).content == "2 seats"
    refused = await call_tool(seats, {"count": 0})
    assert (refused.status, refused.content[:30]) == ("invalid", "seats was not called: 'count':")


async def test_a_parameter_may_have_any_name() -> None:
    @tool
    def describe(schema: str, _id: int, model_config: str = "none", json: bool = False) -> str:
        return f"{schema} {_id} {model_config} {json}"

    assert list(describe.parameters["properties"]) == ["schema", "_id", "model_config", "json"]
    assert describe.parameters["required"] == ["schema", "_id"]
    assert (await call_tool(describe, {"schema": "s", "_id": 7})).content == "s 7 none False"
    assert (await call_tool(describe, {"schema": "s"})).content == "describe was not called: '_id' is missing"
    assert (await call_tool(describe, {"schema": "s", "field_1": 7})).status == "invalid"


async def test_no_model_sets_the_context_of_a_call_optional_or_not() -> None:
    @tool
    def who(context: ToolContext | None = None) -> str:
        return "nobody" if context is None else context.agent

    assert who.parameters["properties"] == {}
    assert (await call_tool(who, {}, ToolContext(agent="clerk"))).content == "clerk"
    assert (await call_tool(who, {"context": {"agent": "chief"}})).status == "invalid"


class Opaque:
    pass


def takes_opaque(it: Opaque) -> None: ...
def takes_function(it: Callable[[int], int]) -> None: ...
def takes_unknown(it: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def takes_many(*them: str) -> None: ...
def takes_by_place(it: str, /) -> None: ...
def takes_untyped(it) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (takes_opaque, "tool 'takes_opaque': a model cannot write its parameters: .*Opaque"),
        (takes_function, "tool 'takes_function': a model cannot write its parameters"),
        (takes_unknown, "tool 'takes_unknown': its annotations cannot be read: name 'Nowhere' is not defined"),
        (takes_many, "tool 'takes_many': parameter 'them' must be one that is given by its name"),
        (takes_by_place, "tool 'takes_by_place': parameter 'it' must be one that is given by its name"),
        (takes_untyped, "tool 'takes_untyped': parameter 'it' needs a type annotation"),
        (partial(takes_many), "tool 'partial': its annotations cannot be read"),
    ],
)
def test_what_no_model_could_call_is_a_config_error(function: Callable[..., Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Tool(function)


async def test_a_validator_that_breaks_is_a_failed_result() -> None:
    def broken(value: str) -> str:
        raise RuntimeError("out of order")

    @tool
    def careful(it: Annotated[str, AfterValidator(broken)]) -> str:
        return it

    called = await call_tool(careful, {"it": "x"})
    assert (
        called.status == "failed" and "its parameters cannot be checked: RuntimeError: out of order" in called.content
    )


def ready(**schema: Any) -> Tool:
    return Tool(lambda **given: given, name="ready", parameters={"type": "object", **schema})


async def test_every_reference_within_a_ready_schema_is_replaced() -> None:
    number = {"type": "integer"}
    older = ready(
        properties={"a": {"$ref": "#/definitions/N"}, "b": {"$ref": "#/properties/a"}}, definitions={"N": number}
    )
    assert older.parameters == {"type": "object", "properties": {"a": number, "b": number}}
    assert (await call_tool(older, {"b": "x"})).content == "ready was not called: b: 'x' is not of type 'integer'"
    assert ready(properties={"a": {"$ref": "#"}, "b": {"$ref": "#/nowhere"}}).parameters["properties"] == {
        "a": {},
        "b": {},
    }


async def test_a_schema_that_leads_in_circles_says_nothing_of_the_arguments() -> None:
    circle = ready(properties={"a": {"$ref": "#/properties/a"}})
    assert circle.parameters["properties"] == {"a": {}}
    assert (await call_tool(circle, {"a": 1})).status == "ok"


def test_a_reference_into_a_list_is_replaced_too() -> None:
    number = {"type": "integer"}
    either = ready(properties={"a": {"$ref": "#/properties/b/anyOf/0"}, "b": {"anyOf": [number]}})
    assert either.parameters["properties"]["a"] == number


def test_a_schema_that_unfolds_without_end_is_refused() -> None:
    def twice(next: int) -> dict[str, Any]:
        return {"properties": {side: {"$ref": f"#/$defs/{next}"} for side in ("left", "right")}}

    with pytest.raises(ConfigError, match=r"'ready': its parameters have a schema of more than 20,000 parts"):
        ready(properties={"a": {"$ref": "#/$defs/0"}}, **{"$defs": {str(n): twice(n + 1) for n in range(60)}})
