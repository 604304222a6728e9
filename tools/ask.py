"""Asking a person: the run waits, for days if it must, and the answer is the call's result."""

from journeyman.tools.tool import Tool
from journeyman.traces.errors import ToolError


def ask(
    *, description: str = "Asks the person whom the work is for. Use it only for what nobody else can know."
) -> Tool:
    """A tool `ask(question: str) -> str`. The runtime puts the question and ends the run with `needs_input`.

    `journeyman runs answer` gives the answer, and the run goes on from there, in any process. Where calls are made
    without a runtime, nobody can be asked and the call fails.

    - `description`: what agents are told of the tool.
    """

    def ask(question: str) -> str:
        raise ToolError("nobody can be asked here; go on with what is known")

    return Tool(ask, description=description, asks=True)
