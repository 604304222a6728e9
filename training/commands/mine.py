"""The `journeyman mine` command: recorded runs become a dataset for one agent."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from journeyman.runtime.config import Workspace, find_workspace
from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out
from journeyman.traces.errors import TrainingError
from journeyman.traces.store import TraceStore
from journeyman.training.mine import MineConfig, Mined, mine_sft
from journeyman.training.samples import digest_samples, write_samples


def mine_command(
    agent: Annotated[str, typer.Option(help="The agent whose turns are mined")],
    min_score: Annotated[float | None, typer.Option(help="Only runs whose label is at least this")] = None,
    label: Annotated[str, typer.Option(help="The label that --min-score is compared with")] = "score",
    family: Annotated[str | None, typer.Option(help="Only tasks of this family")] = None,
    policy: Annotated[str | None, typer.Option(help="Only turns of this policy, e.g. teacher or worker@8")] = None,
    to: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The dataset (default: in the workspace)")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn recorded runs into training data for one agent, and say what was refused and why."""
    place = find_workspace(workspace)
    store = TraceStore(place.spans, place.labels)
    traces = store.traces(agent=agent, policy=policy, family=family)
    mined = mine_sft(traces, agent, MineConfig(label=label, min_score=min_score, policy=policy, family=family))
    if store.damage:
        notes.print(f"left out: {store.damage}", style="yellow", markup=False, soft_wrap=True)
    if not mined.samples:
        raise TrainingError(_nothing(agent, mined, place))
    digest = digest_samples(mined.samples)
    path = to or place.datasets / f"{agent}-{digest[:12]}.jsonl"
    write_samples(mined.samples, path)
    found = {"path": path, "digest": digest, "rows": len(mined.samples), "turns": mined.turns, "refused": mined.refused}
    emit(found, as_json, lambda: _show(path, mined))


def _nothing(agent: str, mined: Mined, place: Workspace) -> str:
    reasons = ", ".join(f"{reason} ({count})" for reason, count in mined.refused.items())
    return f"no turn of {agent} in {place.spans} became a sample: " + (reasons or "there are none of that kind")


def _show(path: Path, mined: Mined) -> None:
    refused = sum(mined.refused.values())
    out.print(f"{path}", markup=False, soft_wrap=True)
    out.print(f"{len(mined.samples)} rows from {mined.turns} turns; {refused} turns refused")
    if refused:
        table = Table("refused", "turns", box=None)
        for reason, count in mined.refused.items():
            table.add_row(reason, str(count))
        out.print(table)
