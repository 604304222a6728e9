"""The report as one HTML page that needs nothing else: no script, no font, no other file."""

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape

from journeyman.traces.reports.report import Report
from journeyman.traces.reports.shown.plots import (
    attribution_plot,
    cost_plot,
    critical_path_plot,
    days_plot,
    latency_plot,
    require_plots,
    steps_plot,
    success_plot,
)
from journeyman.traces.reports.shown.sections import Section, headline, sections
from journeyman.traces.reports.wording import duration, percent, visible

OPEN = 14
"""Rows of a table that are shown before it is folded."""


def html(report: Report, *, title: str = "journeyman report") -> str:
    """The page; the same report gives the same bytes. Raises `ConfigError` where matplotlib is not installed."""
    require_plots()
    body = "".join(_section(section, report) for section in sections(report))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{_text(title)}</h1>
<p class="headline">{_text(headline(report))}</p>
<p class="scope">{_text(_scope(report))}</p>
</header>
<div class="cards">{"".join(_card(*card) for card in _cards(report))}</div>
<nav>{"".join(f'<a href="#{_anchor(one)}">{_text(one.heading)}</a>' for one in sections(report))}</nav>
<main>{body}</main>
</body>
</html>
"""


def _cards(report: Report) -> Iterator[tuple[str, str, str]]:
    """Name, number, and what it is of."""
    if report.overall is None:
        return
    overall, each = report.overall, report.cost.per_solved
    yield "Solved", percent(overall.solved_rate), f"{overall.solved:,} of {overall.runs:,} runs"
    if overall.score is not None:
        yield "Mean score", f"{overall.score:.2f}", f"{overall.scored:,} runs scored"
    runs = next((one for one in report.latency if one.kind == "run"), None)
    if runs is not None:
        yield (
            "A run takes",
            duration(runs.seconds.p50),
            f"P90 {duration(runs.seconds.p90)}, P99 {duration(runs.seconds.p99)}",
        )
    if each is None:
        return
    yield "Tokens", f"{each.input_tokens + each.output_tokens:,.0f}", "for each solved task"
    if each.money is not None:
        yield report.cost.currency, f"{each.money:.4f}", "for each solved task"
    if each.measured_joules is not None:
        yield "Energy", f"{each.measured_joules:,.0f} J", "for each solved task, measured"
    if each.estimated_joules is not None:
        yield "Energy", f"≈ {each.estimated_joules:,.0f} J", "for each solved task, estimated"


def _section(section: Section, report: Report) -> str:
    plots = "".join(f"<figure>{svg}</figure>" for svg in _plots(section, report))
    return (
        f'<section id="{_anchor(section)}"><h2>{_text(section.heading)}</h2><p>{_text(section.note)}</p>'
        f"{plots}{_table(section)}</section>"
    )


def _plots(section: Section, report: Report) -> Iterator[str]:
    match section.topic:
        case "success":
            if len(report.by_day) > 1:
                yield days_plot(report.by_day)
            groups = (("family", report.by_family), ("agent", report.by_agent), ("policy", report.by_policy))
            yield success_plot(groups)
        case "attribution":
            yield attribution_plot(report.attribution)
        case "steps":
            yield steps_plot(report.compounding)
        case "latency":
            yield latency_plot(report.latency)
        case "cost" if report.cost.usage.tokens:
            yield cost_plot(report.cost)
        case "critical path" if report.slowest is not None and report.slowest.pieces:
            yield critical_path_plot(report.slowest)


def _table(section: Section) -> str:
    numbers = [column.startswith(">") for column in section.columns]

    def row(cells: tuple[str, ...], tag: str = "td") -> str:
        inside = (
            f"<{tag}{' class=n' if number else ''}>{_text(cell)}</{tag}>"
            for cell, number in zip(cells, numbers, strict=True)
        )
        return f"<tr>{''.join(inside)}</tr>"

    head = row(tuple(column.removeprefix(">") for column in section.columns), "th")
    body = (
        f"<div class=scroll><table><thead>{head}</thead><tbody>{''.join(map(row, section.rows))}</tbody></table></div>"
    )
    if len(section.rows) <= OPEN:
        return body
    return f"<details><summary>all {len(section.rows):,} rows</summary>{body}</details>"


def _scope(report: Report) -> str:
    """The conditions that the runs meet, as they were asked for."""
    asked = report.scope.model_dump(exclude_none=True)
    for name in ("since_ns", "until_ns"):
        if name in asked:
            at = datetime.fromtimestamp(asked.pop(name) / 1e9, UTC)
            asked[name.removesuffix("_ns")] = f"{at:%Y-%m-%d %H:%M} UTC"
    if report.scope.policy is not None:
        asked["policy"] = " or ".join(report.scope.policy)
    return " · ".join(f"{name} {value}" for name, value in asked.items()) or "all runs"


def _card(name: str, number: str, of: str) -> str:
    return f'<div class="card"><span>{_text(name)}</span><b>{_text(number)}</b><small>{_text(of)}</small></div>'


def _anchor(section: Section) -> str:
    return section.topic.replace(" ", "-")


def _text(text: str) -> str:
    return escape(visible(text), quote=True)


STYLE = """
:root { color-scheme: light dark; --ink: #1c2026; --soft: #626a75; --line: #dfe3e8; --page: #f6f7f9; --card: #ffffff;
  --link: #2f6fb5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #98a1ad; --line: #2e343c; --page: #14171b;
  --card: #1c2026; --link: #7db3ec; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; }
h2 { margin: 0 0 .25rem; font-size: 1.15rem; }
header p { margin: .15rem 0; }
.headline { font-size: 1.05rem; }
.scope, section > p, small, .card span { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.4rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.card, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.card { padding: .7rem .9rem; display: flex; flex-direction: column; }
.card b { font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 0 0 1.25rem; font-size: .9rem; }
nav a { color: var(--link); text-decoration: none; }
section { padding: 1.1rem 1.25rem 1.25rem; margin: 0 0 1.1rem; }
section > p { margin: 0 0 .8rem; }
figure { margin: 0 0 .9rem; }
svg { width: 100%; height: auto; display: block; font-family: inherit; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; width: 100%; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
summary { cursor: pointer; color: var(--link); font-size: .9rem; }
"""
