"""`journeyman traces receive`: spans of other programs, and of servers that someone else runs, into the record."""

import signal
import threading
from typing import Annotated

import typer

from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.workspace import find_workspace


def receive_command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on, on this machine; 0 for any")] = 4318,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take in spans that other programs send by OTLP over HTTP, until Ctrl-C.

    A program sends them here with OTEL_EXPORTER_OTLP_ENDPOINT set to the address that is shown, a vLLM server that
    someone else runs with --otlp-traces-endpoint and OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf: its spans join
    the runs that asked it. The content policy applies as in a run.

    Example: journeyman traces receive --port 4318
    """
    from journeyman.runtime.recording.recording import Recording
    from journeyman.traces.exchange.receive import Receiver

    workspace = find_workspace(folder)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with Recording(workspace, compacts=True) as recording, Receiver(recording, port=port) as receiver:
        notes.print(
            f"spans sent to {receiver.url}/v1/traces are kept in {workspace.spans}", markup=False, soft_wrap=True
        )
        ended.wait()
    counts = {"spans": receiver.spans, "refused_spans": receiver.refused_spans, "refused_requests": receiver.refused}
    spans = f"; {receiver.refused_spans} spans were refused" if receiver.refused_spans else ""
    refused = f"; {receiver.refused} requests were refused" if receiver.refused else ""
    emit(counts, as_json, lambda: out.print(f"{receiver.spans} spans kept{spans}{refused}"))
