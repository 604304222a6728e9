"""The workspace: one folder with everything that journeyman keeps for a project."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from journeyman.traces.errors import ConfigError
from journeyman.traces.record import Config, parse_config, read_toml

PROJECT_FILE = "journeyman.toml"


class ServerConfig(Config):
    """Table `[server]`: how `journeyman server start` starts vLLM."""

    model: str = "smollm2-135m-instruct"
    """`smollm2-135m-instruct` (embedded), a local folder, or a hub id."""
    host: str = "127.0.0.1"
    port: int = Field(default=8731, ge=1, le=65535)
    max_model_len: int = 2048
    """Longest prompt and reply together, in tokens."""
    max_loras: int = Field(default=4, ge=1)
    """Adapters served side by side; past it vLLM would evict the oldest silently, so a load beyond it is refused."""
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 8
    """Highest rank of an adapter; vLLM knows these values only. On a CPU every token pays for it, whatever the rank in
    use: vLLM copies that many rows of each layer's adapter for each token, those of a prompt too."""
    max_num_seqs: int = 32
    """Requests decoded together."""
    kv_cache_gb: float = 2.0
    """CPU build only: memory for the KV cache, in GiB."""
    start_timeout_s: float = 600.0
    extra_args: tuple[str, ...] = ()
    """Passed to vLLM as they are."""


class ProjectConfig(Config):
    """`journeyman.toml`, which is optional: every key has a default."""

    server: ServerConfig = ServerConfig()
    mlflow: str | None = None
    """MLflow tracking URI; None for a SQLite store in the workspace."""


class Workspace:
    """Paths under one folder, `.journeyman` beside `journeyman.toml` unless named otherwise."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def config(self) -> ProjectConfig:
        path = self.root.parent / PROJECT_FILE
        return parse_config(ProjectConfig, read_toml(path), str(path)) if path.exists() else ProjectConfig()

    @property
    def spans(self) -> Path:
        """Folder of the span log, one file for each process."""
        return self.root / "spans"

    @property
    def labels(self) -> Path:
        return self.root / "labels.jsonl"

    @property
    def adapters(self) -> Path:
        """One folder for each adapter version, e.g. `worker@8`."""
        return self.root / "adapters"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def journal(self) -> Path:
        """The promotion journal."""
        return self.root / "journal.jsonl"

    @property
    def server(self) -> Path:
        """What is known of the model server: address, process, model."""
        return self.root / "server.json"

    @property
    def server_log(self) -> Path:
        return self.root / "server.log"

    @property
    def mlflow_uri(self) -> str:
        return self.config.mlflow or f"sqlite:///{(self.root / 'mlflow.db').resolve()}"

    def create(self) -> "Workspace":
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"workspace {self.root} cannot be made: {error.strerror}") from None
        return self

    @contextmanager
    def lock(self, job: str) -> Iterator[None]:
        """Holds the workspace for a job that only one process may do at a time; a second one gets a `ConfigError`.

        The kernel releases it when the process ends, however it ends. Runs need no lock.
        """
        path = self.create().root / f"{job}.lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(handle, 32).decode() or "unknown"
                raise ConfigError(
                    f"another process (pid {holder}) is doing `{job}` in {self.root}: "
                    "wait for it, or choose another -C DIR"
                ) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)


def find_workspace(named: Path | None = None) -> Workspace:
    """The workspace that the user named, or `.journeyman` beside the nearest `journeyman.toml`, or here."""
    if named is not None:
        return Workspace(named)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PROJECT_FILE).exists():
            return Workspace(folder / ".journeyman")
    return Workspace(here / ".journeyman")
