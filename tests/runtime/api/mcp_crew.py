"""A crew with a scripted model behind an MCP server, which the tests start: over stdio, or over HTTP at the port given.

python mcp_crew.py RUNS.db [PORT]
"""

import asyncio
import sys
from pathlib import Path

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.api.mcp import listen, serve
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.run_store import RunStore
from journeyman.tools.ask import ask
from journeyman.tools.tool import tool
from journeyman.traces.errors import ModelError


@tool
def price(item: str) -> str:
    """The price of a drink."""
    return f"{item} costs 4.50"


@tool(approve=True)
def order(item: str) -> str:
    """Orders a drink."""
    return f"{item} is on its way"


@tool(timeout_s=30)
async def brew(mark: str) -> str:
    """Takes its time, and says when it is cut short."""
    await asyncio.to_thread(Path(mark).write_text, "begun")
    try:
        await asyncio.sleep(20)
    finally:
        await asyncio.to_thread(Path(mark).write_text, "stopped")
    return "brewed"


def answers(request: ModelRequest) -> str:
    first, last = request.messages[1].content, request.messages[-1].content
    if "was not called" in last:
        return write_answer(f"Sorry: {last}")
    if last.startswith(("price: ", "boss: ", "order: ")):
        return write_answer(last.partition(": ")[2])
    match first.split():
        case ["brew", mark]:
            return write_call("brew", {"mark": mark})
        case ["order", item]:
            return write_call("order", {"item": item})
        case ["ask", *question]:
            return write_call("boss", {"question": " ".join(question)})
        case ["break"]:
            raise ModelError("the machine is cold")
    return write_call("price", {"item": first})


crew = Crew(
    name="cafe",
    orchestrator=None,
    workers=(
        Agent(
            name="waiter", instructions="Serve.", description="knows prices", tools=("price", "boss", "order", "brew")
        ),
    ),
    tools={"price": price, "boss": ask().renamed("boss"), "order": order, "brew": brew},
)

if __name__ == "__main__":
    runtime = Runtime(crew, model=ScriptedModel(answers), runs=RunStore(Path(sys.argv[1])))
    listening = listen("127.0.0.1", int(sys.argv[2])) if len(sys.argv) > 2 else None
    asyncio.run(serve(runtime, listening))
