"""The faults that work meets, and the steps that say themselves what goes wrong with them.

A step is named in its goal, `Find t7-2/red!http_500*2`: task 7, assignment 2, branch red, HTTP 500 twice. The model and
the tools read the fault from the name, so that a model in another process needs no table.
"""

import re
from collections.abc import Iterable
from zlib import crc32

PARROT = "parrot"
"""The tool fails each time, and the model answers with what it was told last, word for word."""
REWORDED = "parrot_reworded"
"""The same in words of its own, which only a verifier can know for what they are."""
TOOL_FAULTS = (
    PARROT,
    REWORDED,
    "tool_error",
    "tool_exception",
    "tool_exit",
    "tool_cancelled",
    "tool_timeout",
    "tool_hang",
    "tool_wrong_type",
    "tool_empty",
    "tool_huge",
)
EFFECT_FAULTS = ("effect_then_error", "effect_then_timeout", "effect_after_timeout")
"""The tool that writes fails after it wrote, or writes after it was given up."""
REPLY_FAULTS = ("truncated", "invalid_json", "empty_reply", "unknown_tool", "wrong_arguments", "wrong_shape")
"""A reply that cannot be used, whether it calls tools as JSON or in a template of its own."""
NATIVE_FAULTS = (
    "no_call_id",
    "same_call_id",
    "call_in_text",
    "text_beside_calls",
    "same_call_twice",
    "too_many_calls",
)
"""What only calls in a model's own template can have."""
MODEL_FAULTS = ("model_error", "model_exception", "model_hang", "worker_cancelled", "cancellation_raised")
"""Of a model within the process: before its reply, or in the middle of it where the reply is streamed."""
HTTP_FAULTS = ("http_400", "http_429", "http_500", "reset", "hang", "cut_body", "not_json")
STREAM_FAULTS = (
    "stream_cut",
    "stream_reset",
    "stream_ended",
    "stream_hang",
    "broken_event",
    "error_event",
    "no_done",
    "odd_lines",
)
"""In the middle of a reply that is streamed; the last two do it no harm."""
PLAN_FAULTS = ("truncated", "invalid_json", "unknown_worker", "cycle")

POISON = "FAULTTEXT"
"""Part of every text that a fault brings."""
BAD_HISTORY = "BADHISTORY"
"""Part of what a model says to messages that some servers would refuse."""
ALWAYS = 99
LISTER = "lister"
TRAITS = ("native", "pairing", "hasty", "trusting", "spare")
"""What a worker can be: one that calls in the model's own template; both tools at once; one with little time, for the
steps that hang; one that nobody verifies; one with a policy to fall back on."""
ENDLESS = {"model_hang", "hang", "stream_hang"}

_MARK = re.compile(r"!(\w+)\*(\d+)")


def step_of(goal: str) -> str:
    """`t7-2/red!http_500*3` of the goal that names it."""
    return goal.split()[1]


def fact_of(step: str) -> str:
    """What there is to find in a step."""
    return f"fact{crc32(plain_step(step).encode()):08x}"


def plain_step(step: str) -> str:
    """The step without what goes wrong with it."""
    return _MARK.sub("", step)


def fault_of(step: str) -> tuple[str, int]:
    """The fault and how often it comes; an empty name where there is none."""
    mark = _MARK.search(step)
    return ("", 0) if mark is None else (mark[1], int(mark[2]))


def worker_of(*steps: str) -> str:
    """The worker that one or several steps go to, by a name that says its traits."""
    faults = {fault_of(step)[0] for step in steps}
    drawn = crc32(plain_step(steps[0]).encode())
    traits = {
        "native": bool(drawn & 1 or faults & {*NATIVE_FAULTS}),
        "pairing": bool(drawn & 2),
        "hasty": bool(faults & ENDLESS),
        "trusting": REWORDED not in faults and bool(drawn & 4 or PARROT in faults),
        "spare": bool(drawn & 8),
    }
    return worker_name(trait for trait in TRAITS if traits[trait])


def worker_name(traits: Iterable[str]) -> str:
    return "_".join(["worker", *traits])
