"""A real vLLM server's own spans: each model call of a run has its time in the queue, in prefill and in decode."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.serving.server import ServerState
from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble
from journeyman.traces.capture.log import SpanLog, SpanRecord, read_spans
from journeyman.traces.capture.tracer import Tracer

pytestmark = [pytest.mark.serve, pytest.mark.timeout(300)]
CREW = Crew(
    name="short",
    orchestrator=None,
    workers=(Agent(name="worker", instructions="Answer in one word.", limits=Limits(turns=2, tokens=24)),),
)


def engine_spans(spans: Path, trace_id: str, wanted: int) -> list[SpanRecord]:
    """The server's spans of a run; they come half a second after it."""
    deadline = monotonic() + 20
    while True:
        found = [span for span in read_spans(spans) if span.trace_id == trace_id and span.kind == "server"]
        if len(found) >= wanted or monotonic() > deadline:
            return found
        sleep(0.2)


async def test_every_model_call_of_a_run_has_the_servers_times(vllm_server: ServerState, tmp_path: Path) -> None:
    assert vllm_server.log is not None
    model = ChatVLLM(base_url=vllm_server.url)
    async with Runtime(CREW, model=model, tracer=Tracer(SpanLog(tmp_path))) as runtime:
        outcome = await runtime.run("How many moons has Mars?")
    recorded = list(read_spans(tmp_path))
    calls = {span.span_id: span for span in recorded if span.attributes.get(a.OPERATION) == "chat"}
    found = engine_spans(vllm_server.log.parent / "spans", outcome.trace_id, len(calls))
    assert {span.parent_id for span in found} == calls.keys() != set()
    for span in found:
        call = calls[str(span.parent_id)]
        assert span.attributes[a.RESPONSE_ID] == call.attributes[a.RESPONSE_ID]
        assert span.attributes[a.INPUT_TOKENS] == call.attributes[a.INPUT_TOKENS]
        assert span.attributes[a.OUTPUT_TOKENS] == call.attributes[a.OUTPUT_TOKENS]
        seconds = [float(str(span.attributes[name])) for name in (a.ENGINE_QUEUE, a.ENGINE_PREFILL, a.ENGINE_DECODE)]
        assert all(value >= 0 for value in seconds)
        assert sum(seconds) <= (call.end_ns - call.start_ns) / 1e9
        assert a.OPERATION not in span.attributes
    for turn in assemble([*recorded, *found]).turns:
        assert None not in (turn.queue_s, turn.prefill_s, turn.decode_s)


def test_each_core_of_the_machine_has_a_thread_of_the_servers_own(vllm_server: ServerState) -> None:
    """So it is where OpenMP has read what vLLM set for its worker, which begins as a fork."""
    worker = next(pid for pid in _session_of(vllm_server) if "Worker" in Path(f"/proc/{pid}/cmdline").read_text())
    threads = (int(task.name) for task in Path(f"/proc/{worker}/task").iterdir())
    bound = [cores for thread in threads if len(cores := os.sched_getaffinity(thread)) == 1]
    told = Path(f"/proc/{vllm_server.pid}/environ").read_text().partition("VLLM_CPU_OMP_THREADS_BIND=")[2]
    assert set().union(*bound) == set(map(int, told.partition("\0")[0].split(",")))


def _session_of(state: ServerState) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with suppress(ProcessLookupError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == state.pid:
                yield int(entry.name)
