"""Complaints: a reply that the runtime refused and told the agent so, and the one that it accepted next."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from journeyman.traces.assemble import turn_refusal
from journeyman.training.data.pairs.alternatives import Call, Pair
from journeyman.training.data.source import Source
from journeyman.training.data.turns import MinedTurn

UNUSABLE = "reply not usable"
"""The refusal of a call whose reply came, and was refused: it couldn't be read, or a verifier didn't accept it."""

NO_REPLY = "call failed"

CERTAIN = 1.0
"""The margin where no outcomes are compared: one reply was refused, or a person replaced it."""

COLUMNS = (
    *("trace_id", "span_id", "policy", "served_by", "adapter_digest", "weights", "finish_reason", "demonstration"),
    *("prompt_token_ids", "token_ids", "logprobs"),
)


class Complaints:
    """Refused replies of work that goes on, until one is accepted."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], list[Call]] = defaultdict(list)
        self.calls: list[Call] = []
        """All that were refused."""
        self.pairs: list[Pair] = []

    def refused(self, turn: MinedTurn, call: Call) -> None:
        self._refused[turn.trace_id, turn.trajectory_id].append(call)
        self.calls.append(call)

    def went_on(self, turn: MinedTurn, accepted: Call | None) -> None:
        """The next turn of that work; `accepted` is None where it isn't worth imitating."""
        if turn.refusal == NO_REPLY:
            return
        before = self._refused.pop((turn.trace_id, turn.trajectory_id), ())
        if accepted is not None:
            self.pairs += (Pair("complaint", CERTAIN, (accepted,), (call,)) for call in before)


def contract_refusals(source: Source, calls: Collection[Call]) -> dict[Call, str]:
    """Why replies that the runtime refused break the capture contract besides, so that nobody may learn from them."""
    if not calls:
        return {}
    asked = source.store.turns(COLUMNS, agent=source.agent, ids={call.trace_id for call in calls})
    named = (dict(zip(COLUMNS, values, strict=True)) for values in asked)
    found = ((Call(row["trace_id"], row["span_id"]), row) for row in named)
    reasons = ((call, _contract(row)) for call, row in found if call in calls)
    return {call: reason for call, reason in reasons if reason is not None}


def follows(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a prompt is the one before with complaints behind it; the first may be part of its last message."""
    if not before or len(after) < len(before) or [*after[: len(before) - 1]] != [*before[:-1]]:
        return False
    last, same = before[-1], after[len(before) - 1]
    if last == same:
        return len(after) > len(before)
    both_ask = last["role"] == same["role"] == "user"
    return both_ask and str(same["content"]).startswith(f"{last['content']}\n\n")


def _contract(row: Mapping[str, Any]) -> str | None:
    prompt, ids, logprobs = (_numbers(row[name]) for name in ("prompt_token_ids", "token_ids", "logprobs"))
    return turn_refusal(
        withheld=None,  # Where a text is withheld, that is the refusal.
        answered=True,
        failed=False,
        finish_reason=row["finish_reason"],
        policy=row["policy"] or "",
        served_by=row["served_by"],
        adapter_digest=row["adapter_digest"],
        weights=row["weights"],
        demonstration=row["demonstration"],
        prompted=bool(prompt),
        token_ids=ids,
        logprobs=logprobs,
    )


def _numbers(values: Any) -> list[Any] | None:
    return None if values is None else list(values)
