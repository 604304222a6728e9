"""One tool call: validated, timed, contained. A failure becomes a result that the model can act on."""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import is_dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from journeyman.tools.context import ToolContext
from journeyman.tools.parameters import InvalidArgumentsError
from journeyman.tools.tool import Tool
from journeyman.traces.base import Record
from journeyman.traces.errors import ToolError, writable
from journeyman.traces.trace import CallStatus

SECONDS_TO_END = 2.0
"""For an async function that was cancelled; it is left behind after that."""


class CallResult(Record):
    status: CallStatus
    content: str
    """What the model is shown: the result, or in one line what went wrong."""


async def call_tool(tool: Tool, arguments: dict[str, Any], context: ToolContext | None = None) -> CallResult:
    """Calls `tool` and returns how it went; raises only `CancelledError`, and that only where its caller was cancelled.

    A plain function runs in a thread of its own, so a hundred calls wait side by side. Python cannot stop a thread:
    one that outlives its time is left behind, its result is dropped, and neither the loop nor the process waits for
    it at the end. An async function is cancelled at the end of its time, and left behind too where it does not heed
    that. What must be stopped for certain belongs into a process.
    `context` is given to a function that has a parameter for it. A function that stands in for another tool may return
    a `CallResult` itself.
    """
    try:
        valid = tool.arguments.read(arguments)
    except InvalidArgumentsError as error:
        return CallResult(status="invalid", content=_shown(f"{tool.name} was not called: {error}", tool.max_chars))
    except Exception as error:  # A validator is the tool's code too.
        said = f"{tool.name} was not called: its parameters cannot be checked: {_told(error)}"
        return CallResult(status="failed", content=_shown(said, tool.max_chars))
    if tool.context_parameter is not None:
        valid = {**valid, tool.context_parameter: context or ToolContext()}
    # A task of its own, which can be left behind where the function goes on though it was cancelled.
    working = asyncio.ensure_future(_contained(tool, valid))
    status, content = await _in_time(working, tool)
    return CallResult(status=status, content=_shown(content, tool.max_chars))


async def _in_time(working: "asyncio.Task[tuple[CallStatus, str]]", tool: Tool) -> tuple[CallStatus, str]:
    try:
        await asyncio.wait([working], timeout=tool.timeout_s)
    finally:
        late = not working.done()
        if late:
            working.cancel()
            await asyncio.wait([working], timeout=SECONDS_TO_END)
    if late:
        return "timeout", f"{tool.name} did not answer in {tool.timeout_s:g} s"
    if working.cancelled():
        return "failed", f"{tool.name} failed: it was cancelled from within"
    return working.result()


async def _contained(tool: Tool, arguments: dict[str, Any]) -> tuple[CallStatus, str]:
    try:
        said = await _invoke(tool, arguments)
        return (said.status, said.content) if isinstance(said, CallResult) else ("ok", _written(said))
    except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except ToolError as error:
        return "failed", f"{tool.name}: {error}"
    except BaseException as error:  # Whatever a tool's body raises must not end the run.
        return "failed", f"{tool.name} failed: {_told(error)}"


async def _invoke(tool: Tool, arguments: dict[str, Any]) -> Any:
    if inspect.iscoroutinefunction(tool.function):
        return await tool.function(**arguments)
    said = await _in_thread(partial(tool.function, **arguments), tool.name)
    return await said if inspect.iscoroutine(said) else said


async def _in_thread(function: Callable[[], Any], name: str) -> Any:
    """Unlike `asyncio.to_thread`: no pool that hung calls could fill, and no join that would wait for them."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def run() -> None:
        value: Any = None
        error: BaseException | None = None
        try:
            value = context.run(function)
        except (StopIteration, KeyboardInterrupt, GeneratorExit) as stop:
            error = RuntimeError(f"it raised {stop!r}")  # A future refuses the first, a loop ends with the second.
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # The loop has closed: nobody waits any more.
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name=f"tool {name}", daemon=True).start()
    return await done


def _written(said: Any) -> str:
    """As JSON what has parts, because models know it better than Python's own writing of it."""
    if isinstance(said, dict | list | tuple | BaseModel) or is_dataclass(said):
        with suppress(PydanticSerializationError):  # Half a surrogate pair within it, say.
            return to_json(said, fallback=str, inf_nan_mode="constants").decode()
    return str(said)


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # Its `__str__` is the tool's code too.
        return type(error).__name__


def _shown(content: str, limit: int) -> str:
    """As much of it as a model is shown, in characters that servers take."""
    if len(content) > limit:
        content = f"{content[:limit]}\n[cut: the first {limit:,} of {len(content):,} characters]"
    return writable(content)
