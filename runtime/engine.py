"""The main program of a vLLM server of ours: vLLM, and beside it a receiver that records the spans it makes."""

import atexit
import sys
from importlib import import_module
from pathlib import Path

from journeyman.runtime.config import Workspace
from journeyman.runtime.recording import Recording
from journeyman.traces.exchange.receive import Receiver, engine_spans_only


def main() -> None:
    """`sys.argv` holds the workspace, then vLLM's arguments."""
    recording = Recording(Workspace(Path(sys.argv.pop(1))))
    receiver = Receiver(recording, accept=engine_spans_only)
    # vLLM sends its last spans when Python ends, and what is registered first runs last.
    atexit.register(recording.close)
    atexit.register(receiver.close)
    sys.argv += ["--otlp-traces-endpoint", f"{receiver.url}/v1/traces"]
    import_module("vllm.entrypoints.launchers.api_server.entry").main()
