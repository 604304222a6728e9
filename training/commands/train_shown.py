"""What `journeyman train` prints: how a training comes on, its plan, its price, and what came of it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.table import Table

from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.console import notes, out
from journeyman.runtime.workspace import Workspace
from journeyman.traces.reports.wording import duration
from journeyman.training.methods.checkpoints import Checkpoint
from journeyman.training.methods.plan import Choice, Trial
from journeyman.training.methods.recipe import Step

SHOWN = {
    "eval_loss": "held-out loss",
    "reward": "reward",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "kl": "KL",
    "entropy": "entropy",
}
"""Metrics that the progress tells beside the loss, where a method has them."""
SPEED = "tokens_per_second"


def doing(step: Step) -> str:
    """The step's loss, and what else of it says how training goes."""
    told = [f"{word} {step.metrics[name]:.3f}" for name, word in SHOWN.items() if name in step.metrics]
    speed = [f"{step.metrics[SPEED]:,.0f} tokens/s"] if SPEED in step.metrics else []
    return ", ".join(["training", f"loss {step.loss:.3f}", *told, *speed, "step"])


def beginning(base_model: Path, parent: str, start: str, checkpoint: Checkpoint | None) -> str:
    weights = f"the base model {base_model.name}" if start == BASE else f"the weights of {start}"
    aside = "" if parent in (BASE, start) else f", not from {parent}, which the adapter would replace"
    if checkpoint is None:
        return f"training starts from {weights}{aside}"
    return (
        f"training goes on from step {checkpoint.step}, where a run that was cut short left its last checkpoint; "
        f"that run started from {weights}{aside}"
    )


def watt_hours(trial: Trial, workspace: Workspace) -> float | None:
    watts = workspace.config.traces.watts
    return None if watts is None else watts * trial.seconds / 3600


def show_choices(summary: str, choices: Iterable[Choice]) -> None:
    out.print(summary, markup=False)
    table = Table("key", "value", "from", "why", box=None)
    for choice in choices:
        table.add_row(choice.key, str(choice.value), choice.source, choice.why)
    out.print(table)


def show_trial(trial: Trial, energy: float | None) -> None:
    out.print(str(trial.plan), markup=False)
    energy_text = "" if energy is None else f", {energy:.1f} Wh"
    out.print(
        f"a step takes {trial.step_seconds:.1f} s: about {duration(trial.seconds)}{energy_text}, "
        f"within {trial.peak_mb:,.0f} MB",
        markup=False,
        soft_wrap=True,
    )


def show_adapter(adapter: Adapter, workspace: Workspace) -> None:
    weights = "all weights" if adapter.is_model else f"rank {adapter.rank}"
    epochs = "" if adapter.epochs is None else f", {adapter.epochs:.1f} epochs"
    held_out = "" if adapter.eval_loss is None else f", loss of held-out rows {adapter.eval_loss:.3f}"
    out.print(
        f"{adapter.policy}: {adapter.rows} rows{epochs}{held_out}, {weights}, trained "
        f"in {adapter.train_seconds:.0f} s to replace {adapter.parent}, digest {adapter.digest[:12]}",
        soft_wrap=True,
    )
    if adapter.metrics:
        told = ", ".join(f"{name} {value:.3f}" for name, value in adapter.metrics.items())
        out.print(f"at its end: {told}", markup=False, soft_wrap=True)
    for line in _guarded(adapter):
        out.print(line, markup=False, soft_wrap=True)
    if adapter.old is not None and adapter.old.lost:
        notes.print(
            f"the loss of old rows rose by more than guard.worst = {adapter.old.worst:g}: evaluate {adapter.policy} on "
            "earlier tasks, or train with a larger guard.replay",
            markup=False,
        )
    out.print(f"{workspace.adapters / adapter.policy}", markup=False, soft_wrap=True)


def _guarded(adapter: Adapter) -> Iterator[str]:
    """What was done against forgetting, and what came of it."""
    if adapter.replayed:
        rows = sum(len(part.numbers) for part in adapter.replayed)
        yield f"{rows} rows replayed of {', '.join(part.dataset_digest[:12] for part in adapter.replayed)}"
    if old := adapter.old:
        yield f"loss of {old.rows} old rows: {old.before:.3f} under {old.against}, {old.after:.3f} now"
    if drift := adapter.drift:
        yield (
            f"on neutral prompts: KL to the base model {drift.kl:.3f} nats a token, "
            f"{drift.agreement:.0%} of its tokens the same"
        )
