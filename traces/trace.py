"""The nouns of the record: a `Trace` is one task's whole run, a `Trajectory` one agent's turns in it."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, JsonValue, PlainSerializer, TypeAdapter, WrapValidator

from journeyman.traces.base import Record, Words
from journeyman.traces.labels import Label
from journeyman.traces.messages import Message, Usage
from journeyman.traces.prompts import Grown

Status = Literal[
    "ok", "failed", "timeout", "truncated", "skipped", "over_budget", "blocked", "cancelled", "needs_input", "paused"
]
"""How an agent's work ended. The runtime says so, never the model.

`blocked`: a guardrail stood in the way. A run that is `needs_input` waits for a person; one that is `paused` was asked
to stop where nothing is lost. Both can be taken up again.
"""

Ending = Literal[Status, "unfinished"]
"""How a run ended; `unfinished` while there is no outcome, because it still runs or because its process died."""

CallStatus = Literal["ok", "invalid", "failed", "timeout", "denied", "unknown"]
"""How a tool call ended.

`denied`: a permission, a guardrail, the budget or a person refused it. `unknown`: it was begun before a crash and may
have taken effect; a tool that is not idempotent is not called again.
"""

Purpose = Literal["service", "evaluation", "gate", "teach", "rollout", "replay", "shadow"]
"""Why a run was made: for somebody who wants its answer, to measure, to decide on a candidate, to show agents how it is
done, to explore in training, to repeat another run, or to try a policy beside the one in service."""

LEARNED_FROM: tuple[Purpose, ...] = ("service", "teach", "rollout")
HELD_OUT: tuple[Purpose, ...] = tuple(purpose for purpose in get_args(Purpose) if purpose not in LEARNED_FROM)
"""What is learned from such a run would make the next measurement worthless."""

TRACE_VERSION = 1


class Origin(Record):
    """Why a run was made, and from which set of tasks its own is."""

    purpose: Purpose = "service"
    task_set: str | None = None
    """The set's name, such as that of its file; None for a task that came alone."""
    task_set_digest: str | None = None
    """`digest_tasks` of the set."""
    judged: bool = False
    """Somebody says by a label `accepted` whether it may be learned from; until then nobody may."""


class Task(Record):
    """What a crew is to do."""

    id: str
    prompt: str
    reference: JsonValue = None
    """What a scorer may compare an answer with; agents never see it."""
    family: str = "default"
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    session: str | None = None
    """The conversation that the task belongs to (`gen_ai.conversation.id`)."""
    user: str | None = None
    """Who asked (`user.id`): what is recorded of somebody can be deleted by it."""
    demonstration: JsonValue = Field(default=None, exclude_if=lambda value: value is None)
    """How a person did it, for `journeyman teach`; agents never see it."""


class Outcome(Record):
    """How a run ended: what `Runtime.run` returns."""

    task_id: str
    trace_id: str
    run_id: str = ""
    status: Status
    answer: str = ""
    evidence: tuple[str, ...] = ()
    """Spans of the tool calls that the answer rests on."""
    error: Words | None = None
    """Why the status is not `ok`; never part of `answer`."""
    usage: Usage = Usage()
    model_calls: int = 0
    tool_calls: int = 0
    cost: float = 0.0
    """Money, by the workspace's price table."""
    seconds: float = 0.0
    """At work, over all parts of a run that was taken up again."""


CUT_OFF = "CancelledError"
"""The error of a call that was ended from outside: it comes without words of its own."""


class ToolResult(Record):
    """A tool call as it happened."""

    span_id: str
    tool: str
    arguments: dict[str, Any]
    status: CallStatus
    content: str
    """What the model was shown."""
    decisions: JsonValue = None
    """What permissions, guardrails, people and the budget said of the call and its result."""
    started_ns: int
    ended_ns: int

    @property
    def cut_off(self) -> bool:
        return (self.status, self.content) == ("failed", CUT_OFF)


_NUMBERS = TypeAdapter(tuple[int, ...])

Numbers = Annotated[
    Sequence[int],
    WrapValidator(lambda value, _: value if isinstance(value, Grown) else _NUMBERS.validate_python(value)),
    PlainSerializer(list),
]


class Turn(Record):
    """One model call: what the agent saw, what it said, and which weights said it."""

    span_id: str
    agent: str
    policy: str
    """The policy asked for, e.g. `worker@8` or `base` (`gen_ai.request.model`)."""
    served_by: str | None
    """The policy that the server says answered (`gen_ai.response.model`)."""
    adapter_digest: str | None = None
    weights: str | None = None
    """The policy that the server was asked for, where `policy` is a prompt candidate on its weights."""
    messages: tuple[Message, ...]
    response: Message | None
    """None where the call failed."""
    tool_results: tuple[ToolResult, ...] = ()
    usage: Usage = Usage()
    finish_reason: str | None = None
    prompt_token_ids: Numbers | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    """Natural-log probability of each of `token_ids`, as the server sampled it."""
    withheld: str | None = None
    """Why its texts are not what the model saw, where the content policy left some out: nobody may learn from it."""
    demonstration: bool = False
    """True for a turn that a person or a script wrote (policy `teacher`): it has text, but no token ids or logprobs."""
    error: str | None = None
    queue_s: float | None = None
    """Seconds that the server let the call wait; like the next two, None where it gave no account of it."""
    prefill_s: float | None = None
    """Seconds in which it read the prompt."""
    decode_s: float | None = None
    """Seconds in which it wrote the reply."""
    started_ns: int
    ended_ns: int

    @property
    def cut_off(self) -> bool:
        return self.error == CUT_OFF


class Trajectory(Record):
    """One agent at work: an orchestrator over the whole run, or a worker on one assignment."""

    span_id: str
    agent: str
    parent: str | None
    """Span of the trajectory that started this one; None for the first."""
    in_ring: bool = False
    """Whether the spans above it lead back to it, so that nobody can say what started it: it stands as a first one."""
    assignment: str | None = None
    goal: str | None = None
    status: Status | None
    """None where the process died before the agent ended."""
    plan: JsonValue = None
    """The plan that an orchestrator's model made and the runtime accepted."""
    output: JsonValue = None
    decisions: JsonValue = None
    """What guardrails and people said of the goal and the output."""
    error: str | None = None
    turns: tuple[Turn, ...]
    started_ns: int
    ended_ns: int


class Trace(Record):
    version: int = TRACE_VERSION
    trace_id: str
    crew: str | None = None
    task: Task | None
    """None where the process died before the run ended."""
    origin: Origin | None = None
    """None where nothing says why it was made: before there were purposes, and in another program's record."""
    trajectories: tuple[Trajectory, ...]
    outcome: Outcome | None
    decisions: JsonValue = None
    """What guardrails, people and the budget said of the task, the plans and the answer."""
    labels: tuple[Label, ...] = ()
    started_ns: int
    ended_ns: int
    worked_ns: int | None = None
    """Nanoseconds of the parts of the run that ended, without what lies between them; None where none did."""

    @property
    def seconds(self) -> float:
        """In which the run was at work: a time in which it waited for a person does not count."""
        return ((self.ended_ns - self.started_ns) if self.worked_ns is None else self.worked_ns) / 1e9

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(turn for trajectory in self.trajectories for turn in trajectory.turns)

    @property
    def usage(self) -> Usage:
        return sum((turn.usage for turn in self.turns), Usage())

    def label(self, name: str) -> Label | None:
        """The newest label of that name on the whole trace."""
        found = [label for label in self.labels if label.name == name and label.span_id is None]
        return max(found, key=lambda label: label.at_ns, default=None)


def digest_tasks(tasks: Iterable[Task]) -> str:
    """SHA-256 over the tasks of a set, references included."""
    hashed = sha256()
    for task in tasks:
        hashed.update(task.model_dump_json().encode() + b"\n")
    return hashed.hexdigest()


def ending(trace: Trace) -> Ending:
    return "unfinished" if trace.outcome is None else trace.outcome.status
