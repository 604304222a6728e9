"""The teacher: a model whose replies people wrote, so that their work becomes traces like any other."""

from collections.abc import Mapping
from itertools import count

from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.orchestrator import write_plan
from journeyman.agents.plan import Plan
from journeyman.agents.worker import write_answer, write_call
from journeyman.traces.base import Record
from journeyman.traces.errors import ModelError
from journeyman.traces.messages import Usage

TEACHER = "teacher"
"""The policy under which a teacher's turns are recorded."""


class Finding(Record):
    """What a person answered, and where it stands."""

    values: tuple[str, ...]
    document: str
    """The document that says so; without it in sight the honest answer is an empty list."""


class Demonstrations(Record):
    """What people did: a plan for each task, a finding for each goal."""

    plans: Mapping[str, Plan]
    """By the task's prompt."""
    findings: Mapping[str, tuple[Finding, ...]]
    """By goal; people who were asked the same may have answered differently."""
    tool: str
    """The look-up tool, which takes one `query`."""


class Teacher:
    """Plays every agent of a look-up crew: plans a task, looks up a goal, answers with what was found.

    Which of the three is asked for is read from the request: a plan where its schema is a plan's, an answer after a
    tool's result, else a look-up of the goal in the goal's own words. What nobody demonstrated raises `ModelError`.
    """

    provider = "journeyman.teacher"
    demonstrates = True

    def __init__(self, demonstrations: Demonstrations) -> None:
        self._known = demonstrations
        self._count = count(1)

    async def complete(self, request: ModelRequest) -> ModelReply:
        return ModelReply(
            id=f"{TEACHER}-{next(self._count)}",
            model=request.policy,
            content=self._reply(request),
            finish_reason="stop",
            usage=Usage(),
        )

    async def aclose(self) -> None:
        """Nothing to close."""

    def _reply(self, request: ModelRequest) -> str:
        *earlier, last = [message.content for message in request.messages if message.role == "user"]
        if "assignments" in (request.json_schema or {}).get("properties", ()):
            return write_plan(self._plan(last))
        prefix = f"{self._known.tool}: "
        if last.startswith(prefix) and earlier:
            return write_answer(self._answer(earlier[-1], last.removeprefix(prefix).splitlines()))
        if last not in self._known.findings:
            raise ModelError(f"nobody demonstrated what to look up for {last!r}")
        return write_call(self._known.tool, {"query": last})

    def _plan(self, prompt: str) -> Plan:
        if prompt not in self._known.plans:
            raise ModelError(f"nobody demonstrated how to plan {prompt!r}")
        return self._known.plans[prompt]

    def _answer(self, goal: str, found: list[str]) -> list[str]:
        """The first answer whose document was found, or none: a finding that is out of sight would be a guess."""
        seen = [finding for finding in self._known.findings.get(goal, ()) if finding.document in found]
        return list(seen[0].values) if seen else []
