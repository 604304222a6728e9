"""MCP: one odd tool never makes its server unusable, and what a server says is not lost.

People reported that a whole server was refused for a tool whose schema holds a pattern of ECMAScript, a reference that
leads nowhere, no `type`, or a form of an older draft; that a result was thrown away because it did not fit the schema
of its output; and that "connection closed" was all they heard of a server that had said why it could not start.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from journeyman.tools.call import CallResult, call_tool
from journeyman.tools.mcp.toolset import mcp
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError

LIAR = str(Path(__file__).parents[1] / "tools" / "mcp" / "mcp_liar.py")
PLAIN = {
    "name": "plain",
    "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
}


def served(*listed: Any, result: Any = None) -> dict[str, Tool]:
    script = {"tools": listed} | ({} if result is None else {"result": result})
    tools = mcp(command=[sys.executable, LIAR, json.dumps(script)], max_seconds=5)
    return {tool.name: tool for tool in tools}


def odd(schema: Any) -> dict[str, Any]:
    return {"name": "odd", "inputSchema": schema}


def properties(**named: Any) -> dict[str, Any]:
    return {"type": "object", "properties": named}


LETTERS = {"type": "string", "pattern": r"^\p{L}+$"}
TWICE = {
    str(n): properties(left={"$ref": f"#/$defs/{n + 1}"}, right={"$ref": f"#/$defs/{n + 1}"}) for n in range(60)
} | {"60": {"type": "string"}}


@pytest.mark.parametrize(
    ("schema", "good", "bad", "told"),
    [
        (properties(a=LETTERS, n={"type": "integer"}), {"a": "ø", "n": 1}, {"n": "x"}, r"\\p{L}"),
        (properties(a={"type": "string", "pattern": r"(?<year>\d{4})"}), {"a": "2026"}, {"a": 2026}, "(?<year>"),
        (properties(a={"type": "string", "pattern": r"^[\w-.]+$"}), {"a": "a-b"}, {"a": 1}, "pattern"),
        (properties(a={"type": "string", "pattern": "^[[]$"}), {"a": "["}, {"a": 1}, "pattern"),
        ({"properties": {"n": {"type": "integer"}}}, {"n": 1}, {"n": "x"}, ""),
        (properties(a={"$ref": "#/$defs/Gone"}, n={"type": "integer"}), {"a": [], "n": 1}, {"n": "x"}, "#/$defs/Gone"),
        (properties(a={"$ref": "#gone"}), {"a": 1}, None, "#gone"),
        (properties(a={"$ref": "https://example.org/a.json"}), {"a": 1}, None, "https://example.org/a.json"),
        (
            properties(a={"$ref": "#it"}) | {"$defs": {"It": {"$anchor": "it", "type": "integer"}}},
            {"a": 1},
            {"a": ""},
            "",
        ),
        (properties(a={"$ref": "it"}) | {"$defs": {"It": {"$id": "it", "type": "integer"}}}, {"a": 1}, {"a": ""}, ""),
        (properties(a={"$ref": "#/components/It"}) | {"components": {"It": LETTERS}}, {"a": "ø"}, {"a": 1}, "pattern"),
        # anthropics/claude-code#88049: no object at the top, but a choice of objects.
        ({"anyOf": [properties(a={"type": "string"}), properties(b={"type": "integer"})]}, {"a": "x"}, None, ""),
        # mastra-ai/mastra#23731: `required` among the properties.
        (properties(coin={"type": "string"}, required=["coin"]), {"coin": "x"}, {"coin": 1}, 'required: ["coin"]'),
        # Kuadrant/mcp-gateway#662: a type that there is not.
        (properties(n={"type": "int"}), {"n": 1}, None, 'type: "int"'),
        (True, {"any": 1}, None, ""),
        (False, {}, None, "false"),
        (None, {"any": 1}, None, ""),
        ({"type": ["object", "null"]}, {"any": 1}, None, ""),
        ({"type": "string"}, {"any": 1}, None, "string"),
        (properties(a=True, b=None), {"a": 1, "b": 2}, None, "b: null"),
        ({"type": "object", "properties": None, "required": None}, {"a": 1}, None, "properties: null"),
        (properties(a={"type": "number", "minimum": 0, "exclusiveMinimum": True}), {"a": 1}, {"a": 0}, ""),
        (properties(a={"type": "string", "required": True}), {"a": "x"}, {"a": 1}, ""),
        (properties(a={"type": "array", "items": [{"type": "string"}]}), {"a": ["x"]}, {"a": [1]}, ""),
        (properties(a={"type": "string", "nullable": True}), {"a": None}, {"a": 1}, ""),
        (properties(a={"type": "any"}), {"a": 1}, None, ""),
        (properties(a={"type": "date"}), {"a": "today"}, None, "date"),
        (properties(a={"oneOf": [LETTERS, {"type": "string"}]}), {"a": "x"}, {"a": 1}, "pattern"),
        (properties(a={"not": LETTERS}), {"a": "1"}, None, "pattern"),
        (
            {"type": "object", "patternProperties": {r"^\p{L}$": {}}, "additionalProperties": False},
            {"ø": 1},
            None,
            "patternProperties",
        ),
        (properties(a={"$ref": "#"}), {"a": {"a": {}}}, {"a": {"a": 1}}, ""),
        (properties(a={"allOf": [{"$ref": "#/properties/a"}]}), {"a": 1}, None, ""),
        (properties(a={"$ref": "#/$defs/0"}, n={"type": "integer"}) | {"$defs": TWICE}, {"n": 1}, {"n": "x"}, "20,000"),
    ],
)
async def test_an_odd_schema_is_read_as_far_as_it_can_be(
    schema: Any, good: dict[str, Any], bad: dict[str, Any] | None, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    tools = served(odd(schema), PLAIN)
    assert await call_tool(tools["odd"], good) == CallResult(status="ok", content="done")
    if bad is not None:
        assert (await call_tool(tools["odd"], bad)).status == "invalid"
    assert (await call_tool(tools["plain"], {"n": 1})).status == "ok"
    shown = json.dumps(tools["odd"].parameters)
    assert "$ref" not in shown and r"\\p" not in shown and tools["odd"].parameters["type"] == "object"
    said = [one.getMessage() for one in caplog.records if one.name == "journeyman.tools.mcp.toolset"]
    assert len(said) == bool(told)
    assert all("'odd'" in one and told in one for one in said)


def test_a_tool_without_a_schema_takes_anything() -> None:
    """mastra-ai/mastra#21859."""
    bare = served({"name": "bare"}, PLAIN)["bare"]
    assert bare.parameters == {"properties": {}, "type": "object"}


@pytest.mark.parametrize("left_out", [{"inputSchema": {"type": "object"}}, {"name": 3}, "shop", None])
def test_a_tool_without_a_name_is_left_out(left_out: Any) -> None:
    assert list(served(left_out, PLAIN)) == ["plain"]


def test_tools_whose_names_come_out_alike_are_told_apart() -> None:
    schema = {"type": "object"}
    assert list(served(*({"name": name, "inputSchema": schema} for name in ("a-b", "a.b", "a_b")))) == [
        "a_b",
        "a_b_2",
        "a_b_3",
    ]


def test_what_only_accompanies_a_tool_may_be_odd() -> None:
    strange = {**PLAIN, "annotations": {"readOnlyHint": "yes", "idempotentHint": True}, "icons": 3, "title": 4}
    (plain,) = served(strange | {"outputSchema": "none", "_meta": []}).values()
    assert plain.writes and plain.idempotent


TEXT = [{"type": "text", "text": "21 degrees"}]
OUTPUT = {"type": "object", "properties": {"degrees": {"type": "integer"}}, "required": ["degrees"]}


@pytest.mark.parametrize(
    ("output", "result", "content"),
    [
        # ThinkInAIXYZ/deepchat#2075: a schema of the output that is none.
        ({"type": "object", "properties": {"list": {"type": {"type": "string"}}}}, {"content": TEXT}, "21 degrees"),
        (OUTPUT, {"content": TEXT}, "21 degrees"),
        (OUTPUT, {"content": TEXT, "structuredContent": {"degrees": "21"}}, "21 degrees"),
        (OUTPUT, {"content": TEXT, "structuredContent": None}, "21 degrees"),
        (OUTPUT, {"content": TEXT, "structuredContent": [21]}, "21 degrees"),
        ({"$ref": "#/$defs/Gone"}, {"content": TEXT, "structuredContent": {}}, "21 degrees"),
        ({"type": "array"}, {"content": [], "structuredContent": [21]}, "[21]"),
        (OUTPUT, {"structuredContent": {"degrees": 21}}, '{"degrees": 21}'),
    ],
)
async def test_a_result_that_does_not_fit_its_schema_keeps_its_text(
    output: Any, result: dict[str, Any], content: str
) -> None:
    (weather,) = served({**odd({"type": "object"}), "outputSchema": output}, result=result).values()
    assert await call_tool(weather, {}) == CallResult(status="ok", content=content)


def dying(code: str, *arguments: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        mcp(command=[sys.executable, "-c", f"import os, sys\n{code}", *arguments], connect_seconds=5, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_server_that_dies_at_its_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    said = dying("raise ModuleNotFoundError('No module named shop')", log=log)
    assert "cannot be reached: Connection closed; the last that it wrote: " in said
    assert said.endswith("ModuleNotFoundError: No module named shop")
    assert "No module named shop" in log.read_text()


def test_of_many_last_words_the_end_is_told_and_a_silent_server_gets_none() -> None:
    said = dying("sys.stderr.write('noise ' * 100_000 + '\\n\\x1b[31mfatal: no disk\\x1b[0m\\n')")
    assert said.endswith("fatal: no disk") and len(said) < 500
    assert dying("").endswith("cannot be reached: Connection closed")


def test_a_server_that_never_answers_is_told_with_its_last_words_too() -> None:
    with pytest.raises(ConfigError, match="no answer in 2 s; the last that it wrote: waiting for a lock"):
        mcp(command=["sh", "-c", "echo waiting for a lock >&2; sleep 60"], connect_seconds=2)


def test_last_words_tell_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "hush-hush")
    code = "sys.exit(f'bad login {sys.argv[1:]} {os.environ[\"SHOP_TOKEN\"]} sk-proj-Zx81kQ9wLmNpR4tUvY2aBcD3eF5gH7jK')"
    said = dying(
        code, "--token=mum-is-the-word", "--key", "open-sesame", "postgres://me:pass-word@db/x", env=["SHOP_TOKEN"]
    )
    assert "bad login" in said
    for secret in ("hush-hush", "mum-is-the-word", "open-sesame", "pass-word", "sk-proj-Zx81"):
        assert secret not in said
