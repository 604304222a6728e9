"""The server's main program, with a stand-in for vLLM on the path: its spans are in the log when it has ended."""

import os
import subprocess
from pathlib import Path

from journeyman.runtime.config import ServerConfig
from journeyman.runtime.serving.launch import command, environment
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import read_spans

STAND_IN = """
import multiprocessing, os, sys

def export(name, kind):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
    import atexit
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=os.environ["ENDPOINT"])))
    atexit.register(provider.shutdown)
    parent = set_span_in_context(NonRecordingSpan(SpanContext(7, 9, True, TraceFlags(1))))
    span = provider.get_tracer("vllm").start_span(name, context=parent, kind=SpanKind[kind])
    span.set_attributes({"gen_ai.request.id": "chatcmpl-1", "gen_ai.latency.e2e": 2.0,
                         "gen_ai.latency.time_in_queue": 0.5})
    span.end()

def child():
    print("child", "journeyman.traces.exchange.receive" in sys.modules, flush=True)
    export("Load weights", "INTERNAL")

def main():
    os.environ["ENDPOINT"] = sys.argv[sys.argv.index("--otlp-traces-endpoint") + 1]
    print("arguments", *sys.argv[1:3], flush=True)
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
    export("llm_request", "SERVER")
"""


def test_its_requests_are_in_the_log_and_its_children_start_no_receiver(tmp_path: Path) -> None:
    folder = tmp_path / "vllm" / "entrypoints" / "launchers" / "api_server"
    folder.mkdir(parents=True)
    for package in (folder, *folder.parents[:3]):  # Without them the installed vLLM would come first.
        (package / "__init__.py").touch()
    (folder / "entry.py").write_text(STAND_IN)
    (tmp_path / "vllm" / "platforms.py").write_text("class current_platform:\n    is_cpu = staticmethod(bool)\n")
    workspace = tmp_path / ".journeyman"
    config = ServerConfig()
    env = environment("vllm", config, {**os.environ, "PYTHONPATH": str(tmp_path)})
    done = subprocess.run(
        command("model", config, "vllm", workspace), env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["arguments --model model", "child False"]
    (found,) = read_spans(workspace / "spans")
    assert (found.name, found.kind, found.trace_id, found.parent_id) == (
        "llm_request",
        "server",
        f"{7:032x}",
        f"{9:016x}",
    )
    assert found.attributes[a.RESPONSE_ID] == "chatcmpl-1"
    assert (found.attributes[a.ENGINE_QUEUE], found.attributes[a.ENGINE_TOTAL]) == (0.5, 2.0)
