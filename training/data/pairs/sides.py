"""Sides: the texts of what pairs, read once, on the disk until both sides of a pair are there."""

import tempfile
from collections.abc import Collection, Sequence
from typing import NamedTuple, Self

from pydantic_core import from_json, to_json

from journeyman.training.data.edits import Edits
from journeyman.training.data.pairs.alternatives import Call, Pair
from journeyman.training.data.pairs.complaints import contract_refusals, follows
from journeyman.training.data.replies import Replies, Reply
from journeyman.training.data.samples import BUFFER_BYTES, PreferenceSample, plain_line
from journeyman.training.data.source import Source
from journeyman.training.data.student import Prompt
from journeyman.training.data.turns import MinedTurn

SAME = "both sides say the same"
ELSEWHERE = "an accepted reply to another prompt than the refused one's"
OTHER_PROMPT = "a corrected reply to another prompt than the agent has now"
HALF_SAMPLED = "a sampled reply beside one of which only the text is known"
GONE = "gone meanwhile"


class Kept(NamedTuple):
    """A reply on the disk, from `start` on: what it said, its token ids, and where asked four
    lines of its prompt: tools, form, messages, token ids."""

    start: int
    size: int
    policy: str
    edited_by: str | None


class Sides:
    """A context manager: what it wrote is gone when it ends."""

    def __init__(self, source: Source, replies: Replies, edits: Edits, pairs: Sequence[Pair]) -> None:
        self._replies = replies
        self._edits = edits
        self._agent = source.agent
        self._prompts = {pair.rejected[0] for pair in pairs}
        self._prompts |= {pair.chosen[0] for pair in pairs if pair.origin == "complaint"}
        self._wanted = self._prompts | {pair.chosen[0] for pair in pairs}
        self._corrected = {pair.rejected[0] for pair in pairs if pair.origin == "person"}
        refused = {pair.rejected[0] for pair in pairs if pair.origin in ("complaint", "person")}
        self._broken = contract_refusals(source, refused)
        self._kept: dict[Call, Kept | str] = {}
        self._written: dict[Call, Kept | str] = {}
        """What people wrote in the place of a reply."""

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile(buffering=BUFFER_BYTES)
        ids: Collection[str] = {call.trace_id for call in self._wanted}
        for turn in self._replies.turns(None, ids) if ids else ():
            call = Call(turn.trace_id, turn.span_id)
            if call in self._wanted:
                self._kept[call] = self._broken.get(call) or self._read(turn, call)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def line(self, pair: Pair) -> bytes | str:
        """The line of a pair, or why there is none."""
        rejected = self._kept.get(pair.rejected[0], GONE)
        known = self._written if pair.origin == "person" else self._kept
        chosen = known.get(pair.chosen[0], GONE)
        if isinstance(rejected, str) or isinstance(chosen, str):
            return rejected if isinstance(rejected, str) else str(chosen)
        (bad, bad_ids, *prompt), (good, good_ids, *other) = self._lines(rejected), self._lines(chosen)
        if good == bad:
            return SAME
        tools, form, messages, ids = prompt
        if pair.origin == "complaint" and not follows(from_json(messages), from_json(other[2])):
            return ELSEWHERE
        if good_ids and not ids:
            return HALF_SAMPLED
        written = {"tools": tools, "prompt_form": form, "messages": messages, "prompt_token_ids": ids}
        written |= {
            "chosen": _side(chosen, pair.chosen, good, good_ids),
            "rejected": _side(rejected, pair.rejected, bad, bad_ids),
        }
        return plain_line(
            PreferenceSample,
            written={name: value or None for name, value in written.items()},
            agent=self._agent,
            origin=pair.origin,
            margin=pair.margin,
            trace_id=pair.chosen[0].trace_id,
            span_ids=list(dict.fromkeys(call.span_id for call in (*pair.chosen, *pair.rejected))),
        )

    def _read(self, turn: MinedTurn, call: Call) -> Kept | str:
        reply = self._replies.read(turn)
        if isinstance(reply, str):
            return reply
        if call not in self._prompts:
            return self._keep(reply)
        messages = self._replies.prompt(reply)
        if isinstance(messages, str):
            return messages
        if call in self._corrected:
            self._written[call] = self._correction(turn, call, messages)
        return self._keep(reply, messages)

    def _correction(self, turn: MinedTurn, call: Call, messages: Prompt) -> Kept | str:
        edit = self._edits.of(*call)
        if edit is None:
            return GONE
        written = self._edits.written(turn, edit, self._replies.definitions(turn))
        reply = written if isinstance(written, str) else self._replies.read(written)
        if isinstance(reply, str):
            return reply
        if self._replies.prompt(reply) != messages:
            return OTHER_PROMPT
        return self._keep(reply, edited_by=edit.label.source)

    def _keep(self, reply: Reply, messages: Prompt | None = None, edited_by: str | None = None) -> Kept:
        turn = reply.turn
        prompt_ids, ids = turn.ids or ("", "")
        said = {"completion": reply.content, **({"tool_calls": reply.tool_calls} if reply.tool_calls else {})}
        lines = [to_json(said, inf_nan_mode="null")[1:-1], ids.encode()]
        if messages is not None:
            form = turn.prompt_form and self._replies.form
            shown = (reply.tools or None, form or None, messages)
            lines += [to_json(one, inf_nan_mode="null") if one is not None else b"" for one in shown]
            lines.append(prompt_ids.encode())
        text = b"\n".join(lines)
        start = self._file.seek(0, 2)
        self._file.write(text)
        return Kept(start, len(text), turn.policy or "", edited_by)

    def _lines(self, kept: Kept) -> list[bytes]:
        self._file.seek(kept.start)
        text: bytes = self._file.read(kept.size)
        return text.split(b"\n")


def _side(kept: Kept, calls: Sequence[Call], said: bytes, ids: bytes) -> bytes:
    """JSON of a `Side`."""
    known = {"policy": kept.policy, "trace_id": calls[0].trace_id, "span_ids": [call.span_id for call in calls]}
    if kept.edited_by is not None:
        known["edited_by"] = kept.edited_by
    end = b',"token_ids":%b' % ids if ids else b""
    return b"%b,%b%b}" % (to_json(known)[:-1], said, end)
