"""`journeyman traces compact` and `doctor`: the record made small, and the record looked after."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TaskID

from journeyman.runtime.console import Exit, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.workspace import find_workspace

if TYPE_CHECKING:
    from journeyman.traces.storage.compact import Compaction
    from journeyman.traces.storage.doctor import Health


def compact_command(folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Turn closed log files into compressed segments, join small ones, and delete what is not to be kept longer.

    Example: journeyman traces compact
    """
    from journeyman.traces.storage.compact import compact
    from journeyman.traces.storage.retention import retain, size
    from journeyman.traces.storage.segments import Segments

    workspace = find_workspace(folder)
    config, segments = workspace.config.traces, Segments(workspace.segments)
    with told() as tell:
        done = compact(workspace.spans, segments, processes=min(4, os.cpu_count() or 1), progress=tell)
        if config.keep_days is not None or config.keep_gb is not None:
            ended = retain(
                workspace.store,
                workspace.spans,
                workspace.labels,
                segments,
                keep_days=config.keep_days,
                keep_gb=config.keep_gb,
            )
            after = size(workspace.spans, segments)
            done = done.model_copy(update={"deleted": done.deleted + ended.spans, "bytes_after": after})
    emit(done, as_json, lambda: out.print(_compacted(done), markup=False, soft_wrap=True))


def doctor_command(
    repair: Annotated[
        bool, typer.Option("--repair", help="Set corrupt segments aside, and remove what nobody needs")
    ] = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the whole record against its checksums; exit code 3 where something is damaged.

    Example: journeyman traces doctor
    """
    from journeyman.traces.storage.doctor import examine
    from journeyman.traces.storage.segments import Segments

    workspace = find_workspace(folder)
    with told() as tell:
        health = examine(workspace.spans, Segments(workspace.segments), repair=repair, progress=tell)
    emit(health, as_json, lambda: out.print(_health(health), markup=False, soft_wrap=True))
    for path, why in health.corrupt.items():
        notes.print(f"corrupt: {path}: {why}", style="yellow", markup=False)
    if health.damage:
        notes.print(f"damaged: {health.damage}", style="yellow", markup=False)
        raise typer.Exit(Exit.PARTIAL)


def _compacted(done: "Compaction") -> str:
    if done.busy:
        return "another compaction is at work: nothing was done"
    lines = [
        f"{done.files} log files with {done.spans:,} spans became segments",
        *([f"{done.merged} small segments were joined"] if done.merged else []),
        *([f"{done.deleted:,} spans of deleted runs are gone"] if done.deleted else []),
        *([f"{done.torn} damaged records are kept in damaged/"] if done.torn else []),
        *([f"{done.live} log files are still being written"] if done.live else []),
        *([f"{done.kept} log files stay: not all in them can be read yet"] if done.kept else []),
        f"{_size(done.bytes_before)} before, {_size(done.bytes_after)} after",
    ]
    return "\n".join(lines)


def _health(health: "Health") -> str:
    lines = [
        f"{health.spans:,} spans in {health.files} log files ({_size(health.file_bytes)}, {health.live} being written)"
        f" and {health.segments} segments ({_size(health.segment_bytes)}); {health.texts} large texts",
        *([f"{health.superseded} replaced segments wait for a compaction"] if health.superseded else []),
        *([f"{len(health.partials)} unfinished files of dead writers: --repair"] if health.partials else []),
        *([f"{len(health.orphans)} texts that no span refers to: --repair"] if health.orphans else []),
        *([f"{health.aside} files were set aside in damaged/"] if health.aside else []),
        *health.repaired,
    ]
    return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


@contextmanager
def told() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each thing that is being done."""
    tasks: dict[str, TaskID] = {}
    with progress() as bar:

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield tell
