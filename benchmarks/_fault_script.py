"""A model that works well but for the faults of its steps, and its replies as the chat API writes them."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from _faults import (
    BAD_HISTORY,
    EFFECT_FAULTS,
    HTTP_FAULTS,
    LISTER,
    MODEL_FAULTS,
    NATIVE_FAULTS,
    PARROT,
    PLAN_FAULTS,
    POISON,
    REPLY_FAULTS,
    REWORDED,
    STREAM_FAULTS,
    fact_of,
    fault_of,
    plain_step,
    step_of,
    worker_of,
)

Messages = Sequence[Mapping[str, Any]]
"""As the chat API writes them."""

_FAILED = re.compile(r"(\d+(?:\.\d+)?) \(\w+\) (?!ok|skipped)")
_HEARD = re.compile(r"(?:\d+\. )?(find|book): (.*)")


@dataclass(frozen=True)
class SaidCall:
    """A call in the model's own template."""

    tool: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True)
class Said:
    content: str = ""
    calls: tuple[SaidCall, ...] = ()
    finish_reason: str = "stop"
    fault: str | None = None
    """What whoever carries the reply has to do instead, or with it."""

    def completion(self, reply_id: str, model: str) -> dict[str, Any]:
        """The reply as one body."""
        calls = [_wire(call) for call in self.calls]
        message = {"role": "assistant", "content": self.content, **({"tool_calls": calls} if calls else {})}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return {"id": reply_id, "model": model, "choices": [choice], "usage": _USAGE}

    def chunks(self, reply_id: str, model: str) -> list[dict[str, Any]]:
        """The reply as the events of a stream: its text, its calls in two parts each, its end, and its usage."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in pieces(self.content)]
        for place, call in enumerate(self.calls):
            half = len(call.arguments) // 2
            deltas.append({"tool_calls": [{"index": place, **_wire(replace(call, arguments=call.arguments[:half]))}]})
            deltas.append({"tool_calls": [{"index": place, "function": {"arguments": call.arguments[half:]}}]})
        events = [*map(_event, deltas), _event({}, self.finish_reason), {"choices": [], "usage": _USAGE}]
        return [{"id": reply_id, "model": model, **event} for event in events]


_USAGE = {"prompt_tokens": 1, "completion_tokens": 1}


def _event(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def pieces(text: str) -> list[str]:
    """Three parts of a text, where it is long enough."""
    size = -(-len(text) // 3) or 1
    return [text[start : start + size] for start in range(0, len(text), size)]


@dataclass
class Script:
    """What the model says: it tries again after a fault, and never makes anything up."""

    told: Counter[str] = field(default_factory=Counter)

    def reply(self, messages: Messages) -> Said:
        """The reply to a conversation; one that a strict server would refuse has the fault `bad_history`."""
        if flaw := _flaw(messages):
            return Said(f"{BAD_HISTORY}: {flaw}", fault="bad_history")
        # Complaints about earlier replies stand behind the task, after an empty line.
        asked = str(next(one["content"] for one in messages if one["role"] == "user")).split("\n\n")[0]
        worker = str(messages[0]["content"]).split("\n")[0]
        plans = asked.startswith("Plan")
        right = Said(_planned(asked, messages)) if plans else _worked(step_of(asked), worker, messages)
        fault = "" if worker == LISTER else self._due(asked.split(" {")[0])
        if fault in (*MODEL_FAULTS, *HTTP_FAULTS, *STREAM_FAULTS):
            return replace(right, fault=fault)
        if fault in (*REPLY_FAULTS, *NATIVE_FAULTS) and "native" in worker:
            return _garbled_calls(fault, right)
        if fault in (*REPLY_FAULTS, *PLAN_FAULTS):
            return _garbled(fault, right.content)
        return right

    def _due(self, asked: str) -> str:
        """The fault that is named, as often as it is to come; else nothing."""
        fault, times = fault_of(asked)
        self.told[asked] += 1
        return fault if self.told[asked] <= times else ""


def _planned(asked: str, messages: Messages) -> str:
    """The plan that the task holds; or, for reports of it, replacements for what failed, where the task wants them."""
    told = str(messages[-1]["content"])
    if len(messages) <= 2:
        return asked[asked.index("{") :]
    if not asked.startswith("Plan again") or "not usable" in told:
        return json.dumps({"assignments": []})
    rows = json.loads(messages[-2]["content"])["assignments"]
    failed = [match[1] for line in told.splitlines() if (match := _FAILED.match(line))]
    return json.dumps({"assignments": [_replacement(place, rows) for place in failed]})


def _replacement(place: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same step again, without its fault; waits for nothing, because the model of these steps needs nothing."""
    number, _, branch = place.partition(".")
    row = rows[int(number) - 1]
    goal = plain_step(row["goal"]).partition(" after ")[0]
    if branch:
        values = rows[row["each"] - 1]["goal"].removeprefix("List list:").split(",")
        goal = goal.replace(f"{{{row['each']}}}", plain_step(values[int(branch) - 1]))
    return {"worker": worker_of(step_of(goal)), "goal": goal, "replaces": place}


def _worked(step: str, worker: str, messages: Messages) -> Said:
    """A worker's next turn: it finds, books, and answers with what it found."""
    if step.startswith("list:"):
        return Said(json.dumps({"answer": step.removeprefix("list:").split(",")}))
    fault = fault_of(step)[0]
    heard = list(_heard(messages))
    found = [text for tool, text in heard if tool == "find"]
    if fault in (PARROT, REWORDED) and found:
        last = found[-1] if messages[-1]["role"] == "tool" else str(messages[-1]["content"])
        return _answer(last if fault == PARROT else f"It said that {last}", worker)
    booked = [text for tool, text in heard if tool == "book"]
    missing = [] if any(fact_of(step) in text for text in found) else ["find"]
    if ("pairing" in worker or not missing) and len(booked) < 2 and not any("booked" in text for text in booked):
        missing.append("book")
    if not missing:
        return _answer(fact_of(step), worker)
    # Two calls are the same where their arguments are: only a fault of `book` itself goes with it.
    bookable = step if fault in EFFECT_FAULTS else plain_step(step)
    wanted = [(tool, {"step": bookable if tool == "book" else step}) for tool in missing]
    if "native" in worker:
        calls = [
            SaidCall(tool, json.dumps(arguments), id=f"call-{len(messages)}-{place}")
            for place, (tool, arguments) in enumerate(wanted)
        ]
        return Said(calls=tuple(calls), finish_reason="tool_calls")
    written = [{tool: arguments} for tool, arguments in wanted]
    return Said(json.dumps(written if "pairing" in worker else written[0]))


def _answer(text: str, worker: str) -> Said:
    return Said(text if "native" in worker else json.dumps({"answer": text}))


def _heard(messages: Messages) -> Iterator[tuple[str, str]]:
    """What each tool said so far, in either form."""
    names: dict[str, str] = {}
    for message in messages[2:]:
        if message["role"] == "assistant":
            names = {call["id"]: call["function"]["name"] for call in message.get("tool_calls", ())}
        elif message["role"] == "tool":
            yield names[message["tool_call_id"]], str(message["content"])
        else:
            yield from _HEARD.findall(str(message["content"]))


def _flaw(messages: Messages) -> str | None:
    """Why a strict server or a strict chat template would refuse the messages."""
    before = "system"
    open_calls: list[str] = []
    for message in messages[1:]:
        role = str(message["role"])
        if role == "tool" and message["tool_call_id"] not in open_calls:
            return "a result of a call that was not asked for"
        if role == "tool":
            open_calls.remove(message["tool_call_id"])
        elif open_calls:
            return "a call without a result"
        if (role == before and role != "tool") or (before, role) == ("system", "assistant"):
            return f"{role} follows {before}"
        calls = message.get("tool_calls", ())
        open_calls += [call["id"] for call in calls]
        if len({*open_calls}) < len(open_calls) or not all(open_calls):
            return "calls that cannot be told apart"
        if not all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in calls):
            return "arguments that are no object"
        before = role
    return None


def _garbled(fault: str, right: str) -> Said:
    """A text that is not what was asked for."""
    bad: dict[str, str] = {
        "truncated": right[: len(right) // 2],
        "invalid_json": f"{right[:-1]} {POISON}",
        "empty_reply": "",
        "unknown_tool": json.dumps({f"{POISON}_tool": {"step": "1"}}),
        "wrong_arguments": json.dumps({"find": _WRONG_ARGUMENTS}),
        "wrong_shape": json.dumps([POISON, 1, None]),
        "unknown_worker": json.dumps({"assignments": [{"worker": POISON, "goal": POISON}]}),
        "cycle": json.dumps({"assignments": [{"worker": LISTER, "goal": f"{POISON} {{1}}", "needs": [1]}]}),
    }
    return Said(bad[fault], finish_reason="length" if fault == "truncated" else "stop")


_WRONG_ARGUMENTS: dict[str, Any] = {"step": {POISON: [1, None]}, POISON: 2}


def _garbled_calls(fault: str, right: Said) -> Said:
    """A reply in the model's own template that is not what was asked for, or is so in an odd way."""
    first = right.calls[0] if right.calls else SaidCall("find", '{"step": "1"}', id="call-0")
    bad: dict[str, Said] = {
        "truncated": _cut_off(right),
        "invalid_json": _calling(replace(first, arguments=f"{first.arguments[:-1]} {POISON}")),
        "empty_reply": Said(),
        "unknown_tool": _calling(replace(first, tool=f"{POISON}_tool")),
        "wrong_arguments": _calling(replace(first, arguments=json.dumps(_WRONG_ARGUMENTS))),
        "wrong_shape": _calling(replace(first, arguments=json.dumps([POISON, 1, None]))),
        "call_in_text": Said(f'<tool_call>{{"name": "find", "arguments": {{"{POISON}": '),
        "same_call_twice": _calling(*right.calls, *right.calls) if right.calls else right,
        "too_many_calls": _calling(*[replace(first, id=f"call-{place}") for place in range(5)]),
        "no_call_id": replace(right, calls=tuple(replace(call, id=None) for call in right.calls)),
        "same_call_id": replace(right, calls=tuple(replace(call, id="call") for call in right.calls)),
        "text_beside_calls": replace(right, content=f"{POISON}: let me see.") if right.calls else right,
    }
    return bad[fault]


def _cut_off(right: Said) -> Said:
    cut = tuple(replace(call, arguments=call.arguments[: len(call.arguments) // 2]) for call in right.calls[-1:])
    content = right.content[: len(right.content) // 2]
    return Said(content, calls=(*right.calls[:-1], *cut), finish_reason="length")


def _calling(*calls: SaidCall) -> Said:
    return Said(calls=calls, finish_reason="tool_calls")


def _wire(call: SaidCall) -> dict[str, Any]:
    head = {} if call.id is None else {"id": call.id}
    return {**head, "type": "function", "function": {"name": call.tool, "arguments": call.arguments}}
