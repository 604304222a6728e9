"""Recorded runs of one crew, whose worker answers in turns, with whatever is later said of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.labels import Label
from journeyman.traces.trace import Task
from journeyman.training.data.choosing.choose import Choosing
from journeyman.training.data.mine import KINDS, Mining, mine_to_file
from journeyman.training.data.samples import AnySample, Kind, read_samples
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.data.tasks.heldout import NOTHING, HeldOut

QUESTION = "how many moons has Mars?"


def ids_of(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def turn(reply: str, *prompt: str, failed: bool = False, policy: str | None = None, **changes: Any) -> dict[str, Any]:
    """A model call: `prompt` is what the user and the agent said by turns; None takes an attribute away."""
    texts = prompt or (QUESTION,)
    roles = ("user", "assistant") * len(texts)
    whole: dict[str, Any] = {
        a.OPERATION: "chat",
        a.AGENT_NAME: "worker",
        a.REQUEST_MODEL: "base",
        a.RESPONSE_MODEL: "base",
        a.FINISH_REASONS: ["stop"],
        a.INPUT_MESSAGES: json.dumps([message(role, text) for role, text in zip(roles, texts, strict=False)]),
        a.OUTPUT_MESSAGES: json.dumps([message("assistant", reply) | {"finish_reason": "stop"}]),
        a.PROMPT_TOKEN_IDS: json.dumps(ids_of("".join(texts))),
        a.TOKEN_IDS: json.dumps(ids_of(reply)),
        a.LOGPROBS: json.dumps([-0.5 for _ in reply]),
        "failed": failed,
    }
    whole |= {getattr(a, name): value for name, value in changes.items()}
    if policy is not None:
        whole |= {a.REQUEST_MODEL: policy, a.RESPONSE_MODEL: policy, a.ADAPTER_DIGEST: "d"}
    return whole


class Runs:
    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.store = workspace.store
        self._log = SpanLog(workspace.spans)
        self._tracer = Tracer(self._log)

    def run(
        self,
        *turns: dict[str, Any],
        score: float | str | None = None,
        status: str | None = "ok",
        purpose: str | None = "service",
        replay_of: str | None = None,
        verdicts: Sequence[bool] = (),
        task: str = QUESTION,
        source_type: str = "code",
        **told: Any,
    ) -> Any:
        """Its trace id and the span ids of its turns; `verdicts` are the crew's judge's."""
        mark = {} if replay_of is None else {a.REPLAY_OF: replay_of}
        written = Task(id=told.pop("task_id", "t"), prompt=task, reference="2").model_dump_json()
        whole = {a.OPERATION: "invoke_workflow", a.STATUS: "ok", a.PURPOSE: purpose, a.TASK: written} | mark | told
        own = {a.OPERATION: "invoke_agent", a.AGENT_NAME: "worker", a.STATUS: status} | mark
        spans = []
        with self._tracer.span("invoke_workflow crew", parent=None, attributes=whole) as root:
            with self._tracer.span("invoke_agent worker", parent=root, attributes=own) as worker:
                for one in turns:
                    chat = {name: value for name, value in one.items() if name != "failed"} | mark
                    with self._tracer.span("chat", parent=worker, kind="client", attributes=chat) as span:
                        spans.append(span.span_id)
                        if one["failed"]:
                            span.fail("UnreadableReplyError", "not usable")
            for sufficient in verdicts:
                judged = {a.OPERATION: "invoke_agent", a.AGENT_NAME: "judge", a.STATUS: "ok"} | mark
                with self._tracer.span("invoke_agent judge", parent=root, attributes=judged) as judge:
                    judge.set_json(a.OUTPUT, [] if sufficient else ["too short"])
        if score is not None:
            self.label(root.trace_id, "score", score, source="m:f", source_type=source_type)
        return root.trace_id, spans

    def label(self, trace_id: str, name: str, value: Any, span: str | None = None, **more: Any) -> None:
        self.store.label(Label(trace_id=trace_id, span_id=span, name=name, value=value, **{"source": "ann"} | more))

    def source(self, held_out: HeldOut = NOTHING, ids: Sequence[str] | None = None, **config: Any) -> Source:
        return Source(self.store, "worker", MineConfig(**config), ids, held_out)


@pytest.fixture
def runs(workspace: Workspace) -> Runs:
    return Runs(workspace)


@pytest.fixture
def chat() -> Callable[..., dict[str, Any]]:
    return turn


@pytest.fixture
def mine(runs: Runs, tmp_path: Path) -> Callable[..., tuple[list[AnySample], Mining]]:
    """The rows of a kind out of the file that they were written to, and the pass that gave them."""

    def mined(kind: Kind, **source: Any) -> tuple[list[AnySample], Mining]:
        mined_from = runs.source(**source)
        mining = KINDS[kind](mined_from)
        dataset = mine_to_file(mining, tmp_path, lambda digest: "rows.jsonl", Choosing(mined_from))
        return [] if dataset is None else read_samples(dataset.path), mining

    return mined
