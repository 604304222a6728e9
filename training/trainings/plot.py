"""Curves of one or several trainings, as a PNG, an SVG, or a page."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.traces.files import write_whole
from journeyman.training.trainings.trainings import Training

FORMS = (".png", ".svg", ".html")

ALWAYS = ("loss", "eval_loss", "reward")
"""Metrics that are drawn where nobody names others."""


def plot_trainings(trainings: Sequence[Training], path: Path, metrics: Sequence[str] = ()) -> tuple[str, ...]:
    """Draws each metric over the steps into `path`, and returns the metrics that are in it.

    Raises `ConfigError` for a file of another form, for a metric that none of them has, and without matplotlib.
    """
    if path.suffix not in FORMS:
        raise ConfigError(f"{path} can't be drawn: name a file that ends in {', '.join(FORMS)}")
    have = dict.fromkeys(name for one in trainings for step in one.steps.values() for name in step)
    if unknown := next((name for name in metrics if name not in have), None):
        raise ConfigError(f"no training here has the metric {unknown!r}; have {', '.join(sorted(have)) or 'none'}")
    drawn = tuple(metrics) or tuple(name for name in ALWAYS if name in have)
    if not drawn:
        raise TrainingError("there is no step to draw yet: wait until the training has made one")
    picture = _drawn(trainings, drawn, "png" if path.suffix == ".html" else path.suffix[1:])
    try:
        write_whole(path, _page(trainings, picture) if path.suffix == ".html" else picture)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror}") from None
    return drawn


def _drawn(trainings: Sequence[Training], metrics: Sequence[str], form: str) -> bytes:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("a plot needs matplotlib: pip install 'journeyman[plots]'") from None
    figure = Figure(figsize=(8, 2.6 * len(metrics)), layout="constrained")
    rows = figure.subplots(len(metrics), sharex=True, squeeze=False)[:, 0]
    for axes, metric in zip(rows, metrics, strict=True):
        for training in trainings:
            steps = {number: step[metric] for number, step in sorted(training.steps.items()) if metric in step}
            axes.plot(list(steps), list(steps.values()), label=training.name, marker=".")
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
    rows[0].legend(fontsize="small")
    rows[-1].set_xlabel("step")
    out = BytesIO()
    figure.savefig(out, format=form, dpi=120)
    return out.getvalue()


def _page(trainings: Sequence[Training], picture: bytes) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.name)}<td>{one.state}<td>{one.step}<td>{one.seconds:.0f}<td>{escape(one.plan or '')}"
        for one in trainings
    )
    image = base64.b64encode(picture).decode()
    return (
        "<!doctype html><meta charset='utf-8'><title>trainings</title>"
        "<style>body { font-family: sans-serif } td, th { padding: .2em .8em; text-align: left }</style>"
        f"<table><tr><th>training<th>state<th>step<th>seconds<th>plan{rows}</table>"
        f"<img alt='metrics by step' src='data:image/png;base64,{image}'>"
    )
