# mypy: ignore-errors
# (The peers are not among our dependencies: nothing here can be checked against them.)
"""The peers' own telemetry, switched off, or on with every span in a file as soon as it ends, messages included.

That is OpenTelemetry's SDK with its own exporter, without a batch that a crash would lose; OpenAI's has an interface of
its own. Nothing is fsynced and nothing redacted: it is less than our record.
"""

import json
import os
from typing import IO, Any


def switch_off(peer: str) -> None:
    if peer == "openai-agents":
        from agents import set_tracing_disabled

        set_tracing_disabled(True)
    elif peer == "agent-framework-core":
        from agent_framework.observability import disable_instrumentation

        disable_instrumentation()


def record_to(peer: str, file: IO[str]) -> None:
    if peer == "openai-agents":
        _record_openai(file)
        return
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    provider = TracerProvider()
    exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    if peer == "agent-framework-core":
        from agent_framework.observability import enable_instrumentation

        enable_instrumentation(enable_sensitive_data=True)
    elif peer == "pydantic-ai-slim":
        from pydantic_ai import Agent
        from pydantic_ai.models.instrumented import InstrumentationSettings

        Agent.instrument_all(InstrumentationSettings())
    elif peer == "google-adk":
        # Without them its spans have no messages.
        os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
        os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"


def _record_openai(file: IO[str]) -> None:
    from agents.tracing import TracingProcessor, set_trace_processors

    class ToFile(TracingProcessor):
        def on_span_end(self, span: Any) -> None:
            file.write(json.dumps(span.export()) + "\n")
            file.flush()

        def on_trace_end(self, trace: Any) -> None:
            file.write(json.dumps(trace.export()) + "\n")
            file.flush()

        def on_span_start(self, span: Any) -> None:
            """A span is written when it ends."""

        def on_trace_start(self, trace: Any) -> None:
            """A trace is written when it ends."""

        def force_flush(self) -> None:
            """Nothing waits."""

        def shutdown(self) -> None:
            """The file is its owner's."""

    set_trace_processors([ToFile()])
