"""What `journeyman mine` says: the dataset, what gave no row and why, and what was measured on the way."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.table import Table

from journeyman.runtime.console import notes, out
from journeyman.runtime.workspace import Workspace
from journeyman.traces.assemble import WITHHELD
from journeyman.traces.capture.log import Damage
from journeyman.training.commands.choose import show_chosen
from journeyman.training.commands.forks import show_credited, show_drawn
from journeyman.training.data.admission import UNKNOWN
from journeyman.training.data.choosing.choose import Chosen
from journeyman.training.data.edits import NO_EDITS
from journeyman.training.data.mine import Mining
from journeyman.training.data.samples import DatasetFile
from journeyman.training.data.shorter import Preferred


class MineShown(NamedTuple):
    """A pass over the record that is over."""

    mining: Mining
    chosen: Chosen
    preferred: Preferred | None
    forks: Mapping[str, Any]
    """Accounts of `sampled` alternatives and of `credit`, where there are any."""

    def note(self, damage: Damage) -> None:
        """What the user should do; `damage` is the store's."""
        refused = {**self.mining.refused, **self.mining.edited.refused}
        if damage:
            _note(f"left out: {damage}")
        if WITHHELD in refused:
            _note('training needs the texts: set `content = "full"` in `[traces]` of journeyman.toml')
        if UNKNOWN in refused:
            _note(
                "runs from before they said why they were made are left out: add --purpose service --purpose unknown "
                "if they are customers' tasks"
            )

    def nothing(self, agent: str, workspace: Workspace) -> str:
        """Why there is no dataset."""
        mining = self.mining
        counted = [*mining.refused.items(), *mining.edited.refused.items(), *self.chosen.left_out.items()]
        reasons = ", ".join(f"{reason} ({count})" for reason, count in counted)
        if mining.unit != "turn":
            return f"no {mining.unit} became a sample: {reasons or 'there is no text'}"
        return f"no turn of {agent} in {workspace.spans} became a sample: {reasons or 'there are none of that kind'}"

    def report(self, dataset: DatasetFile) -> dict[str, Any]:
        report = {
            **dataset._asdict(),
            "turns": self.mining.turns,
            "refused": self.mining.refused,
            "edits": self.mining.edited.model_dump(),
            "superseded": [pair.model_dump() for pair in self.mining.superseded],
            "counts": self.mining.counts,
            **self.chosen.model_dump(exclude={"rows"}),
            **self.forks,
        }
        if self.preferred is not None:
            report["preferred"] = self.preferred.model_dump(include={"before", "after"})
        return report

    def show(self, dataset: DatasetFile) -> None:
        if "sampled" in self.forks:
            show_drawn(self.forks["sampled"])
        if "credit" in self.forks:
            show_credited(self.forks["credit"])
        mining, left_out = self.mining, sum(self.chosen.left_out.values())
        out.print(f"{dataset.path}", markup=False, soft_wrap=True)
        out.print(
            f"{dataset.rows} rows from {mining.turns} {mining.unit}s; {sum(mining.refused.values())} {mining.unit}s "
            f"refused" + (f"; {left_out} rows left out" if left_out else ""),
            soft_wrap=True,
        )
        _show_edited(mining)
        _show_preferred(self.preferred)
        for what, rows in mining.counts.items():
            out.print(f"{what}: {', '.join(f'{name} {count}' for name, count in rows.items())}")
        for what, reasons in ((f"{mining.unit}s", mining.refused), ("edits", mining.edited.refused)):
            if reasons:
                table = Table("refused", what, box=None)
                for reason, count in reasons.items():
                    table.add_row(reason, str(count))
                out.print(table)
        show_chosen(self.chosen)
        _show_superseded(mining)


def _note(text: str) -> None:
    notes.print(text, style="yellow", markup=False, soft_wrap=True)


def _show_edited(mining: Mining) -> None:
    edited = mining.edited
    if edited != NO_EDITS:
        out.print(
            f"{edited.turns} of them corrected by a person; {sum(edited.refused.values())} edits refused, "
            f"{len(edited.superseded)} superseded"
        )


def _show_preferred(preferred: Preferred | None) -> None:
    if preferred is not None and preferred.before is not None and preferred.after is not None:
        before, after = preferred.before, preferred.after
        out.print(
            f"short runs preferred: {after.runs} of {before.runs} runs; a run has {after.steps:.1f} steps and "
            f"{after.tokens:,.0f} tokens, {before.steps:.1f} and {before.tokens:,.0f} without the choice"
        )


def _show_superseded(mining: Mining) -> None:
    for one in mining.superseded:
        counts, older = one.counts, one.superseded
        where = counts.trace_id[:8] + (f", span {counts.span_id}" if counts.span_id else "")
        out.print(f"{where}: {counts.source}'s {counts.name} counts: {counts.value}", markup=False, soft_wrap=True)
        out.print(f"  superseded, of {older.source}: {older.value}", markup=False, soft_wrap=True)
