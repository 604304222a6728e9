"""Nesting: a run inside a node of an app's own LangGraph graph shows its steps in that graph's stream.

The run's graph has a thread and a checkpointer of its own, which makes it nobody's subgraph for LangGraph: callbacks,
tags and metadata of the graph around it still reach it, but none of its steps would be seen in that graph's stream.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

STREAM = "__pregel_stream"
"""Where LangGraph lends a node the stream of its graph, if that streams its subgraphs. It has no public name."""
ELSEWHERE = {"custom", "messages", "tools"}
"""Modes that don't come from the steps of a graph: whoever embeds a run writes its events, the others are callbacks."""


async def invoke(graph: Any, begun: Any, **options: Any) -> Mapping[str, Any]:
    """What `graph.ainvoke` returns; the graph around it, where one wants to know, is told of each step."""
    around = (_config() or {}).get("configurable", {})
    tell: Callable[[tuple[tuple[str, ...], str, Any]], None] | None = around.get(STREAM)
    state: Mapping[str, Any] = {}
    asked: list[Any] = []
    if tell is None:
        # Version 2 brings questions with the values; the first looks for them in a stream of every node's update.
        ended = await graph.ainvoke(begun, version="v2", **options)
        return {**ended.value, "__interrupt__": ended.interrupts} if ended.interrupts else ended.value
    wanted: set[str] = tell.modes - ELSEWHERE  # type: ignore[attr-defined]
    namespace = tuple(around["checkpoint_ns"].split("|"))
    parts = graph.astream(begun, stream_mode=[*wanted, "values", "updates"], subgraphs=True, version="v2", **options)
    async for part in parts:
        mode, step, inner = part["type"], part["data"], part["ns"]
        interrupts = step.get("__interrupt__", ()) if mode == "updates" else ()
        if not inner:
            asked += interrupts
            state = step if mode == "values" else state
        # The run waits, not the graph around it: that asks in its own way.
        if mode in wanted and not interrupts:
            tell(((*namespace, *inner), mode, step))
    return {**state, "__interrupt__": asked} if asked else state


def nested() -> bool:
    """Whether this is called within somebody's graph, or within another of langchain's runnables."""
    return _config() is not None


def _config() -> Mapping[str, Any] | None:
    """What LangGraph tells the node in which this runs, if it is one."""
    if "langgraph.pregel" not in sys.modules:
        return None  # Where nobody has imported it, it runs nothing; it takes a second to import.
    from langgraph.config import get_config

    try:
        return get_config()
    except RuntimeError:
        return None
