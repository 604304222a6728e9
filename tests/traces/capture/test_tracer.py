"""The tracer: explicit parents, nothing dropped, failures recorded and passed on."""

import asyncio
import random
import resource
import threading
from pathlib import Path

import pytest

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog, SpanRecord, read_spans
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ModelError, StoreError


def spans_of(directory: Path) -> dict[str, SpanRecord]:
    return {span.name: span for span in read_spans(directory)}


def test_spans_know_their_parents_and_are_written_as_they_end(tmp_path: Path) -> None:
    tracer = Tracer(SpanLog(tmp_path))
    with tracer.span("run", parent=None) as run:
        with tracer.span("agent", parent=run) as agent, tracer.span("chat", parent=agent, kind="client") as chat:
            pass
        assert list(spans_of(tmp_path)) == ["chat", "agent"]
        with tracer.span("late", parent=run):
            pass
    spans = spans_of(tmp_path)
    assert {name: span.parent_id for name, span in spans.items()} == {
        "chat": agent.span_id,
        "agent": run.span_id,
        "late": run.span_id,
        "run": None,
    }
    assert {span.trace_id for span in spans.values()} == {run.trace_id}
    assert (spans["chat"].span_id, spans["chat"].kind, spans["run"].kind) == (chat.span_id, "client", "internal")
    assert spans["run"].start_ns <= spans["chat"].start_ns <= spans["chat"].end_ns <= spans["run"].end_ns


async def test_parents_hold_in_concurrent_tasks(tmp_path: Path) -> None:
    tracer = Tracer(SpanLog(tmp_path))

    async def work(name: str) -> None:
        with tracer.span(name, parent=run) as agent:
            await asyncio.sleep(0)
            with tracer.span(f"{name} chat", parent=agent):
                await asyncio.sleep(0)

    with tracer.span("run", parent=None) as run:
        await asyncio.gather(*(work(str(number)) for number in range(20)))
    spans = spans_of(tmp_path)
    for number in range(20):
        assert spans[f"{number} chat"].parent_id == spans[str(number)].span_id
        assert spans[str(number)].parent_id == run.span_id


def test_two_runs_are_two_traces(tmp_path: Path) -> None:
    tracer = Tracer(SpanLog(tmp_path))
    with tracer.span("one", parent=None) as one, tracer.span("two", parent=None) as two:
        assert one.trace_id != two.trace_id
        assert one.traceparent == f"00-{one.trace_id}-{one.span_id}-01"


def test_a_program_that_seeds_random_gets_no_id_twice(tmp_path: Path) -> None:
    ids = set()
    for _ in range(2):
        random.seed(0)
        with Tracer(SpanLog(tmp_path)).span("run", parent=None) as run:
            ids |= {run.trace_id, run.span_id}
    assert len(ids) == 4


def test_more_than_128_attributes_and_long_ones_are_kept(tmp_path: Path) -> None:
    with Tracer(SpanLog(tmp_path)).span("wide", parent=None) as span:
        span.set({f"n{number}": number for number in range(500)})
        span.set({"long": "x" * 200_000, "absent": None, "list": ["a", "b"]})
        span.set_json("json", {"text": "ü", "ids": [1, 2]})
    attributes = spans_of(tmp_path)["wide"].attributes
    assert [attributes[f"n{number}"] for number in range(500)] == list(range(500))
    assert attributes["long"] == "x" * 200_000
    assert attributes["list"] == ["a", "b"]
    assert attributes["json"] == '{"text":"ü","ids":[1,2]}'
    assert "absent" not in attributes


def test_an_exception_marks_the_span_failed_and_travels(tmp_path: Path) -> None:
    tracer = Tracer(SpanLog(tmp_path))
    with (
        pytest.raises(ModelError),
        tracer.span("run", parent=None) as run,
        tracer.span("chat", parent=run),
    ):
        raise ModelError("the server answered 503", kind="server_error", status=503)
    for span in spans_of(tmp_path).values():
        assert span.status == "error"
        # Its own word, which says why; one without such a word has the name of its class.
        assert (span.attributes[a.ERROR_TYPE], span.attributes[a.ERROR]) == ("server_error", "the server answered 503")


async def test_a_cancelled_span_is_written_too(tmp_path: Path) -> None:
    tracer = Tracer(SpanLog(tmp_path))

    async def work() -> None:
        with tracer.span("slow", parent=None):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert spans_of(tmp_path)["slow"].attributes[a.ERROR_TYPE] == "CancelledError"


def test_what_cannot_be_recorded_stops_the_work(tmp_path: Path) -> None:
    tracer = Tracer(SpanLog(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with (
            pytest.raises(StoreError, match="File too large"),
            tracer.span("run", parent=None) as run,
            tracer.span("chat", parent=run),
        ):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # As a full disk would refuse.
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_settings_for_other_telemetry_do_not_thin_out_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")
    with Tracer(SpanLog(tmp_path)).span("chat", parent=None, attributes={"one": "whole text", "two": 2}):
        pass
    assert spans_of(tmp_path)["chat"].attributes == {"one": "whole text", "two": 2}


async def test_the_ends_of_agents_share_one_fsync_and_a_run_can_wait_for_it(tmp_path: Path) -> None:
    log = Syncing(tmp_path)
    tracer = Tracer(log)
    with tracer.span("run", parent=None) as run:
        for number in range(8):
            with tracer.span(f"agent {number}", parent=run, attributes={a.OPERATION: "invoke_agent"}):
                pass
        assert log.syncs == 0
        await tracer.synced()
        assert log.syncs == 1
        with tracer.span("late", parent=run, attributes={a.OPERATION: "invoke_agent"}):
            pass
        await tracer.synced()
    assert log.syncs == 2


def test_without_an_event_loop_the_end_of_a_run_is_on_the_disk_at_once(tmp_path: Path) -> None:
    log = Syncing(tmp_path)
    with Tracer(log).span("run", parent=None, attributes={a.OPERATION: "invoke_workflow"}):
        pass
    assert log.syncs == 1


async def test_the_event_loop_never_waits_for_the_disk(tmp_path: Path) -> None:
    log = Threaded(tmp_path)
    tracer = Tracer(log)
    for number in range(3):
        with tracer.span(f"run {number}", parent=None, attributes={a.OPERATION: "invoke_workflow"}):
            pass
        await tracer.synced()
    assert len(log.threads) == 3 and threading.main_thread() not in log.threads


def test_the_fsync_that_one_thread_waits_for_is_not_lost_when_another_begins_one(tmp_path: Path) -> None:
    log = Syncing(tmp_path)
    tracer = Tracer(log)
    ended, over = threading.Event(), threading.Event()

    def end_a_run() -> None:
        with tracer.span("run", parent=None, attributes={a.OPERATION: "invoke_workflow"}):
            pass

    async def run_elsewhere() -> None:
        end_a_run()
        ended.set()
        over.wait()
        await tracer.synced()

    elsewhere = threading.Thread(target=asyncio.run, args=(run_elsewhere(),))

    class Watched(asyncio.SelectorEventLoop):
        meanwhile = False

        def is_closed(self) -> bool:
            if self.meanwhile and not elsewhere.ident:
                elsewhere.start()
                ended.wait()
            return super().is_closed()

    async def run_here() -> None:
        end_a_run()

    with asyncio.Runner(loop_factory=Watched) as runner:
        runner.run(run_here())
        loop = runner.get_loop()
    assert isinstance(loop, Watched)
    loop.meanwhile = True
    asyncio.run(run_here())
    over.set()
    elsewhere.join()
    assert log.syncs == 1


async def test_a_disk_that_refuses_to_sync_is_told_to_whoever_waits(tmp_path: Path) -> None:
    tracer = Tracer(Refusing(tmp_path))
    with tracer.span("run", parent=None, attributes={a.OPERATION: "invoke_workflow"}):
        pass
    with pytest.raises(StoreError, match="no disk"):
        await tracer.synced()
    await tracer.synced()


class Syncing(SpanLog):
    syncs = 0

    def sync(self) -> None:
        self.syncs += 1
        super().sync()


class Threaded(SpanLog):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.threads: list[threading.Thread] = []

    def sync(self) -> None:
        self.threads.append(threading.current_thread())


class Refusing(SpanLog):
    def sync(self) -> None:
        raise StoreError("there is no disk")
