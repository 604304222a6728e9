"""The workspace: one folder with everything that journeyman keeps for a project."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from journeyman.runtime.config import TASK_SETS, ProjectConfig
from journeyman.traces.base import parse_config, read_toml
from journeyman.traces.errors import ConfigError
from journeyman.traces.files import lock, try_lock

if TYPE_CHECKING:
    from journeyman.runtime.store.run_store import RunStore
    from journeyman.traces.storage.store import TraceStore

PROJECT_FILE = "journeyman.toml"


class Workspace:
    """Paths under one folder, `.journeyman` beside `journeyman.toml` unless named otherwise."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def config_file(self) -> Path:
        return self.root.parent / PROJECT_FILE

    @property
    def config(self) -> ProjectConfig:
        path = self.config_file
        return parse_config(ProjectConfig, read_toml(path), str(path)) if path.exists() else ProjectConfig()

    @property
    def spans(self) -> Path:
        """Folder of the span log, one file for each process."""
        return self.root / "spans"

    @property
    def segments(self) -> str | Path:
        """What `traces.segments.Segments` takes: the spans' folder, unless `[traces] segments` names another place."""
        named = self.config.traces.segments
        if named is None:
            return self.spans
        return named if "://" in named else self.root.parent / named

    @property
    def labels(self) -> Path:
        return self.root / "labels.jsonl"

    @property
    def store(self) -> "TraceStore":
        """What was recorded here, to be asked."""
        from journeyman.traces.storage.store import TraceStore

        segments = None if self.segments == self.spans else str(self.segments)
        return TraceStore(self.spans, self.labels, segments=segments, memory_mb=self.config.traces.memory_mb)

    @property
    def runs(self) -> "RunStore":
        """Runs that can be taken up again; `await open()` it in each event loop, which makes it."""
        from journeyman.runtime.store.run_store import RunStore

        config = self.config.runs
        return RunStore(self._runs_at, durability=config.durability, keep_days=config.keep_days)

    @property
    def has_runs(self) -> bool:
        """Whether there is a run store; whoever only reads should not make one."""
        return isinstance(self._runs_at, str) or self._runs_at.exists()

    @property
    def _runs_at(self) -> Path | str:
        named = self.config.runs.store
        if named is None:
            return self.root / "runs.db"
        return named if "://" in named else self.root.parent / named

    def task_file(self, named: Path) -> Path:
        """The file of the task set of that name, else `named` itself, which is a file's path.

        Raises `ConfigError` for the name of a set that `[tasks]` doesn't have, where there is no such file either.
        """
        name = str(named)
        if name not in TASK_SETS:
            return named
        path: str | None = getattr(self.config.tasks, name)
        if path is not None:
            return self.root.parent / path
        if named.exists():
            return named
        raise ConfigError(
            f'there is no task set {name!r}: write {name} = "FILE" under [tasks] in {self.config_file}, or name a file'
        )

    @property
    def batches(self) -> Path:
        """The names of batches that are not done yet."""
        return self.root / "batches"

    @property
    def adapters(self) -> Path:
        """One folder for each adapter version, e.g. `worker@8`."""
        return self.root / "adapters"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def trainings(self) -> Path:
        """One journal for each training."""
        return self.root / "trainings"

    @property
    def journal(self) -> Path:
        """The promotion journal."""
        return self.root / "journal.jsonl"

    @property
    def router(self) -> Path:
        """The classifier that chooses between a small and a large model."""
        return self.root / "router.json"

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
    def lock(self, job: str, *, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Holds the workspace for a job that only one process may do at a time; a second one gets a `ConfigError`.

        With `on_wait` the second one waits instead, after it was told who holds the workspace. The kernel releases it
        when the process ends, however it ends. Runs need no lock.
        """
        path = self.create().root / f"{job}.lock"
        file = try_lock(path, mode=0o600)
        if file is None:
            holder = f"another process (pid {path.read_text() or 'unknown'}) is doing `{job}` in {self.root}"
            if on_wait is None:
                raise ConfigError(f"{holder}: wait for it, or choose another -C DIR")
            on_wait(holder)
            file = lock(path, mode=0o600)
        with file:
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            yield


def find_workspace(named: Path | None = None) -> Workspace:
    """The workspace that the user named, or `.journeyman` beside the nearest `journeyman.toml`, or here."""
    if named is not None:
        return Workspace(named)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PROJECT_FILE).exists():
            return Workspace(folder / ".journeyman")
    return Workspace(here / ".journeyman")
