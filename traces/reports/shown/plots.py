"""Plots: parts of the report as SVG that stands in a page by itself, readable on light and on dark.

Text and axes take the page's own colour; the same report gives the same bytes.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from journeyman.traces.errors import ConfigError
from journeyman.traces.reports.attribution import Attribution
from journeyman.traces.reports.cost import Cost
from journeyman.traces.reports.critical_path import CriticalPath
from journeyman.traces.reports.latency import Latency
from journeyman.traces.reports.steps import Compounding
from journeyman.traces.reports.success import Success, wilson
from journeyman.traces.reports.wording import line, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD, BAD, WARM, COOL, VIOLET, QUIET = "#3fa27a", "#d9645c", "#d99a3a", "#4e8fd6", "#9a7fd1", "#8c929c"
KINDS = (BAD, WARM, VIOLET, COOL, QUIET, GOOD, "#c77fb0", "#5fb3b3", "#a08060", "#7a8fb8")

INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""

MOST = 14
"""Bars of a plot; the table has all."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": QUIET,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def require_plots() -> None:
    """Raises `ConfigError` where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("a report with plots needs matplotlib: pip install 'journeyman[plots]'") from None


def success_plot(groups: Sequence[tuple[str, Sequence[Success]]]) -> str:
    """Share solved of each family, agent, policy and day, with its 95% interval (Wilson 1927)."""
    rows = [(f"{row.name}  ({kind})", row) for kind, found in groups for row in found[:MOST]]

    def draw(axes: "Axes") -> None:
        for place, (_, row) in enumerate(rows):
            low, high = wilson(row.solved, row.runs)
            axes.barh(place, 100 * row.solved_rate, color=GOOD, height=0.6)
            axes.plot([100 * low, 100 * high], [place, place], color=INK, linewidth=1.2)
            axes.text(101, place, f"{row.solved:,} of {row.runs:,}", va="center", fontsize=9)
        _named_rows(axes, [name for name, _ in rows])
        axes.set_xlim(0, 100)
        axes.set_xlabel("runs solved, %")

    return _svg("success", draw, height=0.9 + 0.32 * len(rows))


def days_plot(days: Sequence[Success]) -> str:
    """Runs of each day, those solved and the others."""

    def draw(axes: "Axes") -> None:
        names = [day.name[5:] for day in days]
        solved = [day.solved for day in days]
        axes.bar(names, solved, color=GOOD, label="solved", width=0.7)
        axes.bar(
            names, [day.runs - day.solved for day in days], bottom=solved, color=BAD, label="not solved", width=0.7
        )
        axes.set_ylabel("runs")
        axes.yaxis.grid(True)
        if len(names) > 10:
            axes.set_xticks(range(0, len(names), -(-len(names) // 10)))
        _legend(axes)

    return _svg("days", draw, height=2.6)


def attribution_plot(found: Attribution) -> str:
    """Unsolved runs by the agent whose step broke first, and by how it broke."""
    agents = list(found.by_agent())[:MOST]
    kinds = sorted({one.kind for one in found.breaks}, key=lambda kind: (-_runs(found, kind=kind), kind))

    def draw(axes: "Axes") -> None:
        left = [0] * len(agents)
        for number, kind in enumerate(kinds):
            runs = [_runs(found, kind=kind, agent=agent) for agent in agents]
            axes.barh(range(len(agents)), runs, left=left, color=KINDS[number % len(KINDS)], label=kind, height=0.6)
            left = [before + now for before, now in zip(left, runs, strict=True)]
        _named_rows(axes, ["no step failed" if agent == "-" else agent for agent in agents])
        axes.set_xlabel("unsolved runs")
        _legend(axes)

    return _svg("attribution", draw, height=1.4 + 0.4 * len(agents))


def steps_plot(found: Compounding) -> str:
    """Accuracy of each position, their product, and the success that was observed."""

    def draw(axes: "Axes") -> None:
        places = [one.position for one in found.positions]
        axes.plot(
            places, [100 * one.accuracy for one in found.positions], ".", color=COOL, label="accuracy of the step"
        )
        product = [100 * one.product for one in found.positions]
        axes.plot(places, product, color=WARM, linewidth=2, label="product up to it", drawstyle="steps-mid")
        assert found.observed is not None and found.expected is not None
        axes.axhline(100 * found.expected, color=WARM, linewidth=1.2, linestyle=":", label="steps alone")
        axes.axhline(100 * found.observed, color=GOOD, linewidth=1.5, linestyle="--", label="runs solved")
        axes.set_ylim(0, 103)
        axes.set_xlabel("step of the run")
        axes.set_ylabel("%")
        axes.yaxis.grid(True)
        _legend(axes)

    return _svg("steps", draw, height=3.0)


def latency_plot(found: Sequence[Latency]) -> str:
    """From the median to the 99th percentile; of model calls also queue, prefill and decode at the median."""
    rows = found[: 2 * MOST]
    names = {"run": "whole runs", "agent": "at work", "model": "model calls", "tool": "tool"}

    def draw(axes: "Axes") -> None:
        for place, row in enumerate(rows):
            at = row.seconds
            axes.plot([at.p50, at.p99], [place, place], color=COOL, linewidth=2, alpha=0.45, solid_capstyle="round")
            for name, value, marker, size in (
                ("P50", at.p50, "o", 7),
                ("P90", at.p90, "o", 4),
                ("P99", at.p99, "|", 10),
            ):
                axes.plot([value], [place], marker, color=COOL, markersize=size, label=name)
            parts = (("queue", row.queue, BAD), ("prefill", row.prefill, WARM), ("decode", row.decode, GOOD))
            for name, part, colour in parts:
                if part is not None:
                    axes.plot([part.p50], [place + 0.28], "s", color=colour, markersize=5, label=f"{name} P50")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        _named_rows(axes, [f"{row.name}  ({names[row.kind]})" for row in rows])
        axes.set_xlabel("seconds")
        _legend(axes)

    return _svg("latency", draw, height=1.3 + 0.36 * len(rows))


def cost_plot(found: Cost) -> str:
    """Tokens of each agent by policy: prompt from the cache, prompt, reply."""
    rows = [one for one in found.spent if one.usage.tokens][:MOST]

    def draw(axes: "Axes") -> None:
        cached = [one.usage.cached_tokens for one in rows]
        fresh = [one.usage.input_tokens - one.usage.cached_tokens for one in rows]
        written = [one.usage.output_tokens for one in rows]
        left = [0] * len(rows)
        for name, tokens, colour in (
            ("input from cache", cached, QUIET),
            ("input", fresh, COOL),
            ("output", written, WARM),
        ):
            axes.barh(range(len(rows)), tokens, left=left, color=colour, label=name, height=0.6)
            left = [before + now for before, now in zip(left, tokens, strict=True)]
        _named_rows(axes, [f"{one.agent}  ({one.policy})" for one in rows])
        axes.set_xlabel("tokens")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        _legend(axes)

    return _svg("cost", draw, height=1.4 + 0.36 * len(rows))


def critical_path_plot(path: CriticalPath) -> str:
    """When each span of the path was what the run waited for; of many spans those that took longest."""
    longest = sorted(path.shares, key=lambda share: -share.seconds)[: 2 * MOST]
    shares = [share for share in path.shares if share in longest]
    rows = {share.span_id: place for place, share in enumerate(shares)}
    colours = {"run": QUIET, "agent": VIOLET, "model": COOL, "tool": WARM}

    def draw(axes: "Axes") -> None:
        start, seen = path.pieces[0].started_ns, set[str]()
        for piece in (piece for piece in path.pieces if piece.span_id in rows):
            began = (piece.started_ns - start) / 1e9
            label = None if piece.kind in seen else piece.kind
            seen.add(piece.kind)
            axes.barh(
                rows[piece.span_id], piece.seconds, left=began, color=colours[piece.kind], label=label, height=0.7
            )
        _named_rows(axes, ["  ".join(filter(None, [share.name, share.assignment])) for share in shares])
        axes.set_xlim(0, path.seconds)
        axes.set_xlabel("seconds since the run began")
        _legend(axes)

    return _svg("path", draw, height=1.2 + 0.26 * len(rows))


def _runs(found: Attribution, *, kind: str, agent: str | None = None) -> int:
    wanted = (one for one in found.breaks if one.kind == kind and agent in (None, one.agent or "-"))
    return sum(one.runs for one in wanted)


def _named_rows(axes: "Axes", names: Sequence[str]) -> None:
    """One row for each name, the first on top."""
    axes.set_yticks(range(len(names)), [shortened(line(name), 34) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.grid(True)


def _legend(axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    axes.legend(known.values(), known.keys(), loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, fontsize=9)


def _svg(name: str, draw: Callable[["Axes"], None], *, height: float, width: float = 8.2) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = STYLE | {"svg.hashsalt": f"journeyman {name}"}
    with rc_context(style), warnings.catch_warnings():
        # The page's fonts draw the text; those that matplotlib measures it with need not have every letter.
        warnings.filterwarnings("ignore", message="Glyph ")
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(file.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    """The SVG fit for a page: without a head, ids that no other plot has, the page's own colour and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: (\d+(?:\.\d+)?px) [^;\"]+", r"font-size: \1", svg)
    head, rest = svg.replace(INK, "currentColor").split(">", 1)
    return re.sub(r' (width|height|version|xmlns:xlink)="[^"]*"', "", head) + ">" + rest.replace("xlink:href", "href")
