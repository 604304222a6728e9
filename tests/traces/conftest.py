"""Golden runs, a span to vary, and runs made to measure.

`learned` went well but for one worker, `taught` was scripted by a teacher, `crashed` was killed on its way.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from journeyman.traces.capture.log import LogReader, SpanLog, SpanRecord
from journeyman.traces.labels import Label, LabelLog
from journeyman.traces.storage.segments import Segments
from journeyman.traces.storage.store import TraceStore

DATA = Path(__file__).parent.parent / "data"
TRACE_IDS = {"learned": "a" * 32, "taught": "b" * 32, "crashed": "c" * 32}

Golden = Callable[[str], list[SpanRecord]]


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Gives the spans of a golden run, in the order in which they were written."""
    spans = list(LogReader(DATA / "spans"))
    return lambda name: [span for span in spans if span.trace_id == TRACE_IDS[name]]


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The URL of a bucket on a real S3-compatible server, the only one that the environment names in this session."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        Segments("s3://bucket").filesystem.mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture
def span() -> SpanRecord:
    return SpanRecord(
        trace_id="f" * 32,
        span_id="1" * 16,
        parent_id=None,
        name="invoke_agent lookup",
        kind="internal",
        start_ns=1,
        end_ns=2,
        status="ok",
        attributes={
            "gen_ai.operation.name": "invoke_agent",
            "journeyman.goal": "Wo liegt Köln?\n",
            "n": [1, 2.5, None],
        },
    )


class Runs:
    """Writes runs of one worker under an orchestrator, a step after the other, into a log, and opens the store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = SpanLog(folder / "spans")
        self._count = 0

    @property
    def store(self) -> TraceStore:
        return TraceStore(self._folder / "spans", self._folder / "labels.jsonl")

    def label(self, trace_id: str, name: str, value: bool | float | str, span_id: str | None = None) -> None:
        LabelLog(self._folder / "labels.jsonl").append(
            Label(trace_id=trace_id, span_id=span_id, name=name, source="test", value=value)
        )

    def add(
        self,
        *steps: Mapping[str, Any],
        status: str | None = "ok",
        worker_status: str | None = "ok",
        score: bool | float | None = None,
        family: str = "rivers",
        worker: str = "lookup",
        start_s: float | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> str:
        """Adds a run and gives its trace id; a status of None is for what died on its way.

        A step is `{"operation": "chat" or "execute_tool", "seconds": 1, "error": ..., ...}`; what else it has are
        attributes. Step k has span id `k` in 16 digits, the worker `a…a`, the orchestrator `b…b`, the run `c…c`.
        """
        self._count += 1
        trace_id = f"{self._count:032x}"
        begun = at = round((1000.0 * self._count if start_s is None else start_s) * 1e9)
        for place, step in enumerate(steps, start=1):
            at = self._step(trace_id, f"{place:016d}", worker, at, dict(step))
        ended = {"trace_id": trace_id, "start_ns": begun, "end_ns": at, "kind": "internal"}
        failed = {"error.type": worker_status, "journeyman.error": "it failed"}
        if worker_status is not None:
            own = {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": worker,
                "journeyman.status": worker_status,
            }
            self._write(ended, "a" * 16, "b" * 16, own | (failed if worker_status != "ok" else {}))
        if status is not None:
            boss = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "boss", "journeyman.status": status}
            self._write(ended, "b" * 16, "c" * 16, boss | ({"error.type": status} if status != "ok" else {}))
            root = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "crew"}
            told = {"journeyman.status": status, "journeyman.task.id": "task", "journeyman.task.family": family}
            self._write(ended, "c" * 16, None, root | told | dict(attributes or {}))
        if score is not None:
            self.label(trace_id, "score", score)
        return trace_id

    def part(self, *, start_s: float, seconds: float, attributes: Mapping[str, Any] | None = None) -> None:
        """The last run is taken up again, and ends well this time."""
        times = {"start_ns": round(start_s * 1e9), "end_ns": round((start_s + seconds) * 1e9), "kind": "internal"}
        root = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "crew", "journeyman.status": "ok"}
        trace_id = f"{self._count:032x}"
        self._write({"trace_id": trace_id, **times}, "d" * 16, None, root | dict(attributes or {}))

    def _step(self, trace_id: str, span_id: str, agent: str, at: int, step: dict[str, Any]) -> int:
        operation, error = step.pop("operation", "chat"), step.pop("error", None)
        engine, seconds = step.pop("engine", None), step.pop("seconds", 1.0)
        told: dict[str, Any] = {"gen_ai.operation.name": operation, "gen_ai.agent.name": agent}
        if operation == "chat":
            told |= {"gen_ai.request.model": "base", "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 10}
        else:
            told |= {"gen_ai.tool.name": "search", "journeyman.tool.status": error or "ok"}
        if error is not None:
            told |= {"error.type": error, "journeyman.error": f"{error}!"}
        end: int = at + round(seconds * 1e9)
        times = {"trace_id": trace_id, "start_ns": at, "end_ns": end, "kind": "client"}
        self._write(times, span_id, "a" * 16, told | step)
        if engine is not None:
            self._write(times | {"kind": "server"}, "e" + span_id[1:], span_id, engine, name="llm_request")
        return end

    def _write(
        self,
        fields: Mapping[str, Any],
        span_id: str,
        parent_id: str | None,
        attributes: Mapping[str, Any],
        name: str = "span",
    ) -> None:
        status = "error" if "error.type" in attributes else "ok"
        values = {"span_id": span_id, "parent_id": parent_id, "name": name, "status": status, "attributes": attributes}
        self._log.append(SpanRecord.model_validate(dict(fields) | values), sync=False)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)
