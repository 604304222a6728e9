"""Rows of each kind, as files of a workspace."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.workspace import Workspace
from journeyman.traces.messages import Message, ToolCall
from journeyman.training.data.datasets.card import Profile, Provenance, write_card
from journeyman.training.data.datasets.rows import read_rows
from journeyman.training.data.samples import (
    AnySample,
    DocumentSample,
    KTOSample,
    PreferenceSample,
    PromptSample,
    SFTSample,
    Side,
    digest_samples,
    write_samples,
)

WriteRows = Callable[..., Path]


def ids(number: int) -> dict[str, Any]:
    return {"trace_id": f"{number:032x}", "span_ids": (f"{number:016x}",)}


def asked(question: str) -> tuple[Message, ...]:
    return (Message(role="system", content="Reply."), Message(role="user", content=question))


def sft(number: int, **changes: Any) -> SFTSample:
    known: dict[str, Any] = {"agent": "clerk", "policy": "teacher", "origin": "teacher", **ids(number)}
    return SFTSample(**known | {"messages": asked(f"Question {number}?"), "completion": f"Answer {number}"} | changes)


CALL = ToolCall(id="c1", name="look_up", arguments={"city": "Rome"})
TOOL = {"name": "look_up", "description": "Looks up", "parameters": {"type": "object"}}
HISTORY = (
    Message(role="user", content="Weather?"),
    Message(role="assistant", content="", tool_calls=(CALL,)),
    Message(role="tool", content="sunny", tool_call_id="c1"),
)
PAIR = PreferenceSample(
    agent="clerk",
    origin="person",
    margin=1.0,
    trace_id="1" * 32,
    span_ids=("1" * 16, "2" * 16),
    messages=asked("Which?"),
    chosen=Side(policy="person", trace_id="1" * 32, span_ids=("1" * 16,), completion="This"),
    rejected=Side(policy="clerk@1", trace_id="2" * 32, span_ids=("2" * 16,), completion="That"),
)
THUMB = KTOSample(
    agent="clerk",
    policy="clerk@1",
    origin="thumbs",
    label=False,
    messages=asked("Why?"),
    completion="No",
    **ids(3),
)
PROMPT = PromptSample(
    agent="clerk",
    origin="recorded",
    reward="score",
    scorer="test",
    success_rate=0.5,
    tries=4,
    messages=asked("How?"),
    **ids(4),
)
DOCUMENT = DocumentSample(agent="clerk", origin="folder", sources=("a.md",), licence="CC0", text="Long ago.")
EACH: dict[str, AnySample] = {
    "sft": sft(1, messages=HISTORY, completion="", tool_calls=(CALL,), tools=(TOOL,)),
    "preference": PAIR,
    "kto": THUMB,
    "prompts": PROMPT,
    "documents": DOCUMENT,
}


@pytest.fixture
def write_rows(workspace: Workspace) -> WriteRows:
    """Writes samples as a dataset of the workspace, with its card unless `card` says no."""

    def write(name: str, *samples: AnySample, card: bool = True) -> Path:
        path = workspace.datasets / name
        write_samples(samples, path)
        if card:
            profile = Profile()
            for row in read_rows(path):
                profile.add(row)
            made = Provenance.now(workspace, {"agent": "clerk"})
            write_card(profile.card(digest_samples(samples), made, turns=len(samples), refused={}), path)
        return path

    return write
