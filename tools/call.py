"""One tool call: validated, timed, contained. A failure becomes a result that the model can act on."""

import asyncio
import inspect
from typing import Any, Literal

from pydantic import ValidationError

from journeyman.tools.tool import Tool
from journeyman.traces.errors import ToolError
from journeyman.traces.record import Record


class CallResult(Record):
    status: Literal["ok", "invalid", "failed", "timeout"]
    content: str
    """What the model is shown: the result, or in one line what went wrong."""


async def call_tool(tool: Tool, arguments: dict[str, Any]) -> CallResult:
    """Calls `tool` and returns how it went; raises nothing but `CancelledError`."""
    try:
        valid = tool.arguments_model.model_validate(arguments)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "arguments"
        return CallResult(status="invalid", content=f"{tool.name} was not called: {where}: {first['msg']}")
    try:
        async with asyncio.timeout(tool.timeout_s):
            value = await _invoke(tool, {name: getattr(valid, name) for name in type(valid).model_fields})
    except TimeoutError:
        return CallResult(status="timeout", content=f"{tool.name} did not answer in {tool.timeout_s:g} s")
    except ToolError as error:
        return CallResult(status="failed", content=f"{tool.name}: {error}")
    except Exception as error:  # Whatever a tool's body raises must not end the run.
        return CallResult(status="failed", content=f"{tool.name} failed: {type(error).__name__}: {error}")
    return CallResult(status="ok", content=str(value))


async def _invoke(tool: Tool, arguments: dict[str, Any]) -> Any:
    if inspect.iscoroutinefunction(tool.function):
        return await tool.function(**arguments)
    return await asyncio.to_thread(tool.function, **arguments)
