"""Whatever a tool does, a call of it ends in a result that a model can read."""

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import NoReturn

import pytest

from journeyman.tools.call import call_tool
from journeyman.tools.tool import Tool, tool, toolbox
from journeyman.traces.errors import ConfigError, ToolError
from journeyman.traces.messages import Usage


def raising(error: BaseException) -> Tool:
    def broken() -> NoReturn:
        raise error

    return Tool(broken)


@pytest.mark.parametrize(
    ("error", "content"),
    [
        (ToolError("the shop is closed"), "broken: the shop is closed"),
        (KeyError("x"), "broken failed: KeyError: 'x'"),
        (SystemExit(3), "broken failed: SystemExit: 3"),
        (StopIteration(1), "broken failed: RuntimeError: it raised StopIteration(1)"),
        (KeyboardInterrupt(), "broken failed: RuntimeError: it raised KeyboardInterrupt()"),
        (BaseException("odd"), "broken failed: BaseException: odd"),
        (TimeoutError("the socket's own"), "broken failed: TimeoutError: the socket's own"),
    ],
)
async def test_what_a_tool_raises_is_a_failed_result(error: BaseException, content: str) -> None:
    called = await call_tool(raising(error), {})
    assert (called.status, called.content) == ("failed", content)


async def test_a_result_that_cannot_be_shown_is_a_failed_result() -> None:
    class Shy:
        def __str__(self) -> str:
            raise ValueError("not for your eyes")

    assert (await call_tool(Tool(lambda: Shy(), name="shy"), {})).status == "failed"


async def test_an_error_that_cannot_be_shown_is_told_by_its_name() -> None:
    class ShyError(Exception):
        def __str__(self) -> str:
            raise ValueError("not for your eyes")

    assert (await call_tool(raising(ShyError()), {})).content == "broken failed: ShyError"


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ({"a": None, "b": [True, "ö"]}, '{"a":null,"b":[true,"ö"]}'),
        (["x", Path("y")], '["x","y"]'),
        (Usage(input_tokens=1), '{"input_tokens":1,"output_tokens":0,"cached_tokens":0}'),
        (3.5, "3.5"),
        ({"half": "\ud800"}, r"{'half': '\ud800'}"),
    ],
)
async def test_a_result_with_parts_is_shown_as_json(result: object, content: str) -> None:
    shown = await call_tool(Tool(lambda: result, name="look"), {})
    assert (shown.status, shown.content) == ("ok", content)


async def test_half_a_character_reaches_no_model() -> None:
    assert (await call_tool(Tool(lambda: "x \ud800", name="half"), {})).content == "x ?"
    assert (await call_tool(raising(KeyError("\ud800")), {})).content.isprintable()


async def test_a_plain_function_that_gives_a_coroutine_is_waited_for() -> None:
    async def answer() -> str:
        return "here"

    assert (await call_tool(Tool(lambda: answer(), name="wrapped"), {})).content == "here"


async def test_an_async_function_that_exits_is_a_failed_result() -> None:
    @tool
    async def leaves() -> None:
        raise SystemExit(3)

    assert (await call_tool(leaves, {})).content == "leaves failed: SystemExit: 3"


async def test_a_function_that_does_not_heed_its_cancellation_is_left_behind() -> None:
    go = asyncio.Event()

    @tool(timeout_s=0.05)
    async def stubborn() -> None:
        while not go.is_set():
            with suppress(asyncio.CancelledError):
                await go.wait()

    late = asyncio.create_task(call_tool(stubborn, {}))
    cancelled = asyncio.create_task(call_tool(Tool(stubborn.function, timeout_s=60), {}))
    await asyncio.sleep(0.02)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (await late).content == "stubborn did not answer in 0.05 s"
    go.set()


async def test_a_huge_result_is_cut_with_a_note() -> None:
    @tool
    def flood(count: int) -> str:
        return "x" * count

    whole, cut = await call_tool(flood, {"count": 20_000}), await call_tool(flood, {"count": 10_000_000})
    assert whole.content == "x" * 20_000
    assert cut.content == "x" * 20_000 + "\n[cut: the first 20,000 of 10,000,000 characters]"
    short = Tool(flood.function, max_chars=5)
    assert (await call_tool(short, {"count": 6})).content == "xxxxx\n[cut: the first 5 of 6 characters]"
    assert (await call_tool(short.renamed("trickle"), {"count": 6})).content.startswith("xxxxx\n[cut")


async def test_a_hundred_plain_functions_wait_side_by_side() -> None:
    @tool
    def slow() -> str:
        sleep(0.3)
        return "done"

    started = perf_counter()
    called = await asyncio.gather(*(call_tool(slow, {}) for _ in range(100)))
    assert {one.content for one in called} == {"done"}
    assert perf_counter() - started < 2


async def test_a_plain_function_sees_the_context_of_its_caller() -> None:
    name = contextvars.ContextVar("name", default="nobody")
    name.set("ada")
    assert (await call_tool(Tool(lambda: name.get(), name="who"), {})).content == "ada"


async def test_a_late_result_is_dropped_without_a_word() -> None:
    go = threading.Event()
    late = Tool(lambda: go.wait(10), name="late", timeout_s=0.05)
    assert await call_tool(late, {}) == await call_tool(late, {})
    assert (await call_tool(late, {})).status == "timeout"
    go.set()
    await asyncio.sleep(0.05)


def test_a_hung_function_holds_up_neither_the_loop_nor_the_process() -> None:
    program = (
        "import asyncio, time\n"
        "from journeyman.tools.call import call_tool\n"
        "from journeyman.tools.tool import Tool\n"
        "hung = Tool(lambda: time.sleep(60), name='hung', timeout_s=0.1)\n"
        "print(asyncio.run(call_tool(hung, {})).content)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert (ran.stdout, ran.stderr) == ("hung did not answer in 0.1 s\n", "")


async def test_cancelling_the_caller_travels_and_cancelling_within_does_not() -> None:
    @tool
    async def gives_up() -> None:
        raise asyncio.CancelledError

    assert (await call_tool(gives_up, {})).content == "gives_up failed: it was cancelled from within"
    for patient in (
        Tool(lambda: sleep(0.5), name="plain"),
        Tool(asyncio.sleep, name="wait", parameters={"type": "object"}),
    ):
        call = asyncio.create_task(call_tool(patient, {} if patient.name == "plain" else {"delay": 60}))
        await asyncio.sleep(0.02)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_ready_schema_is_what_arguments_are_held_to() -> None:
    schema = {
        "type": "object",
        "properties": {"place": {"$ref": "#/$defs/Place"}},
        "required": ["place"],
        "$defs": {
            "Place": {"type": "object", "properties": {"name": {"type": "string"}, "in": {"$ref": "#/$defs/Place"}}}
        },
    }
    said = Tool(lambda **arguments: arguments, name="go", parameters=schema)
    place = said.parameters["properties"]["place"]["properties"]
    assert place == {"name": {"type": "string"}, "in": {}}
    assert (await call_tool(said, {"place": {"name": "Bern"}})).content == '{"place":{"name":"Bern"}}'
    wrong = await call_tool(said, {"place": {"name": "Bern", "in": {"name": 3}}})
    assert (wrong.status, wrong.content) == ("invalid", "go was not called: place.in.name: 3 is not of type 'string'")
    assert "required" in (await call_tool(said, {})).content


@pytest.mark.parametrize(
    "schema", [{}, {"type": "array"}, {"type": "object", "properties": 3}, {"type": "object", "required": "all"}]
)
def test_what_is_no_schema_of_an_object_is_refused(schema: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="tool 'f': "):
        Tool(lambda: None, name="f", parameters=schema)


async def test_a_schema_is_never_fetched_from_elsewhere() -> None:
    schema = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:1/schema.json"}}}
    far = Tool(lambda **arguments: "called", name="far", parameters=schema)
    called = await call_tool(far, {"x": 1})
    assert called.status == "invalid" and "http://127.0.0.1:1/schema.json" in called.content


def test_a_toolbox_names_its_tools_and_refuses_two_alike() -> None:
    one = Tool(lambda: 1, name="one")
    assert {name: tool.name for name, tool in toolbox("box", [one]).items()} == {"box_one": "box_one"}
    assert one.name == "one"
    with pytest.raises(ConfigError, match="two tools of the name 'box_one'"):
        toolbox("box", [one, one])


def test_a_function_that_yields_is_refused_because_its_result_would_be_no_text() -> None:
    def parts(count: int) -> Iterator[str]:
        yield from "x" * count

    async def later(count: int) -> AsyncIterator[str]:
        yield "x" * count

    for function in (parts, later):
        with pytest.raises(ConfigError, match=f"tool '{function.__name__}' gives its result in parts"):
            Tool(function)
