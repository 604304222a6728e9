"""The main program of a vLLM server of ours: vLLM as it starts fastest, and a receiver that records its spans."""

import atexit
import multiprocessing
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from journeyman.runtime import variables
from journeyman.runtime.models.chat_withheld import SEEDABLE
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.workspace import Workspace
from journeyman.traces.exchange.receive import Receiver, engine_spans_only


def main() -> None:
    """`sys.argv` holds vLLM's arguments."""
    if import_module("vllm.platforms").current_platform.is_cpu():
        _leave_out_what_serving_never_uses()
        _fork_where_openmp_allows()
        _keep_generators_as_they_are()
    import_module("vllm.entrypoints.launchers.api_server.entry").main()


def traced_main() -> None:
    """`sys.argv` holds the workspace in which the server's spans are recorded, then vLLM's arguments."""
    recording = Recording(Workspace(Path(sys.argv.pop(1))))
    receiver = Receiver(recording, accept=engine_spans_only)
    # vLLM sends its last spans when Python ends, and what is registered first runs last.
    atexit.register(recording.close)
    atexit.register(receiver.close)
    sys.argv += ["--otlp-traces-endpoint", f"{receiver.url}/v1/traces"]
    main()


def _leave_out_what_serving_never_uses() -> None:
    """Keeps transformers from loading what it finds installed, four seconds long, for what vLLM never asks of it:
    losses of object detection, and assisted generation of its own."""
    absent: dict[str, Any] = dict.fromkeys(("sklearn", "scipy"))
    sys.modules.update(absent)


def _fork_where_openmp_allows() -> None:
    """Lets the engine and its worker begin as forks, as on a GPU: half the start, and memory is shared.

    vLLM would have each of them import everything once more, 20 s on a small machine, so that OpenMP reads the settings
    of that process. Intel's library, which `launch` preloads where it is installed, reads them after a fork too.
    """
    if "libiomp5" in os.environ.get(variables.PRELOADED, ""):
        # Before anything else imports it by its name.
        processes: Any = import_module("vllm.utils.system_utils")
        processes.get_mp_context = lambda: multiprocessing.get_context("fork")


def _keep_generators_as_they_are() -> None:
    """Leaves out a rewind that ends vLLM 0.32 on a CPU, for everybody whom it serves.

    Where a prompt is prefilled in parts, vLLM draws a token after each part, throws it away and rewinds the request's
    generator. A CPU's generator can't be rewound, and raises. Without it a seeded reply is the same wherever its prompt
    is cut into the same parts. The version that the server tells has a label for it, which clients look for.
    """
    runner: Any = import_module("vllm.v1.worker.gpu_model_runner").GPUModelRunner
    original = runner._bookkeeping_sync

    def without_rewind(self: Any, *arguments: Any, **options: Any) -> Any:
        generators, self.input_batch.generators = self.input_batch.generators, {}
        try:
            return original(self, *arguments, **options)
        finally:
            self.input_batch.generators = generators

    runner._bookkeeping_sync = without_rewind
    told: Any = import_module("vllm.entrypoints.serve.instrumentator.basic")
    told.VLLM_VERSION += f"{'.' if '+' in told.VLLM_VERSION else '+'}{SEEDABLE}"
    print("journeyman: seeded requests are served without vLLM's rewind of their generators, which fails on a CPU")
