"""Sections: the report as plain headings, sentences and rows, the same for a terminal and for a page."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import compress
from typing import Literal

from journeyman.traces.base import Record
from journeyman.traces.reports.attribution import Attribution
from journeyman.traces.reports.capture import Captured
from journeyman.traces.reports.cost import Cost
from journeyman.traces.reports.critical_path import CriticalPath
from journeyman.traces.reports.latency import Latency, Quantiles
from journeyman.traces.reports.report import Report
from journeyman.traces.reports.steps import Compounding
from journeyman.traces.reports.success import Success
from journeyman.traces.reports.wording import count, duration, percent

Topic = Literal["success", "attribution", "steps", "latency", "cost", "critical path", "capture", "rings"]


class Section(Record):
    """The answer to one question."""

    topic: Topic
    heading: str
    note: str
    """A sentence or two: the answer in words, or what the columns mean."""
    columns: tuple[str, ...]
    """One that begins with `>` holds numbers."""
    rows: tuple[tuple[str, ...], ...]


def sections(report: Report) -> Iterator[Section]:
    """What the report knows something about, in the order in which a person asks; empty columns are left out."""
    return map(_narrowed, _sections(report))


def _sections(report: Report) -> Iterator[Section]:
    if report.overall is None:
        return
    yield _success(report)
    if report.attribution.unsolved:
        yield _attribution(report.attribution)
    if report.compounding.runs:
        yield _steps(report.compounding)
    if report.latency:
        yield _latency(report.latency)
    yield _cost(report.cost)
    if report.slowest is not None:
        yield _critical_path(report.slowest)
    if report.captured:
        yield _capture(report.captured)
    if report.rings:
        yield _rings(report.rings)


def headline(report: Report) -> str:
    """How many runs, from when to when, and how many were solved."""
    if report.overall is None or report.first_ns is None or report.last_ns is None:
        return "no runs"
    first, last = (f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d}" for ns in (report.first_ns, report.last_ns))
    solved = f"{report.overall.solved:,} solved ({percent(report.overall.solved_rate)})"
    return f"{count(report.overall.runs, 'run')}, {first if first == last else f'{first} to {last}'}: {solved}"


def cost_words(found: Cost) -> str:
    """All that was spent over the tasks solved, in a sentence or two; an estimate is called one."""
    each = found.per_solved
    if each is None:
        return f"No run was solved; {found.usage.tokens:,} tokens were spent on {count(found.runs, 'run')}."
    parts = [
        f"{each.input_tokens:,.0f} tokens in",
        f"{each.output_tokens:,.0f} out",
        f"{duration(each.seconds)} of runs",
    ]
    if each.money is not None:
        parts.append(f"{each.money:.4f} {found.currency}")
    if each.measured_joules is not None:
        counters = ", ".join(one.counters for one in found.energy if one.counters)
        parts.append(f"{each.measured_joules:,.0f} J (measured: {counters})")
    if each.estimated_joules is not None:
        parts.append(f"{each.estimated_joules:,.0f} J (estimated)")
    words = f"{', '.join(parts)}: all that {count(found.runs, 'run')} spent, over the {found.solved:,} solved."
    if found.cache_hit_rate is not None:
        words += f" {percent(found.cache_hit_rate)} of input tokens came from the prefix cache."
    if found.money is not None and found.unpriced:
        words += f" Without a price: {', '.join(found.unpriced)}."
    return words


def _narrowed(section: Section) -> Section:
    filled = [any(row[place] for row in section.rows) for place in range(len(section.columns))]
    return section.model_copy(
        update={
            "columns": tuple(compress(section.columns, filled)),
            "rows": tuple(tuple(compress(row, filled)) for row in section.rows),
        }
    )


def _success(report: Report) -> Section:
    groups = {"family": report.by_family, "agent": report.by_agent, "policy": report.by_policy, "day": report.by_day}
    return Section(
        topic="success",
        heading="How often tasks are solved",
        note="Score: the mean. Solved: scored 1; where nobody scored, ended ok. Own work: the agent's own assignments.",
        columns=("by", "", ">runs", ">ended ok", ">score", ">solved", ">%", ">own work ok"),
        rows=tuple(
            (kind if place == 0 else "", *_success_row(row))
            for kind, rows in groups.items()
            for place, row in enumerate(rows)
        ),
    )


def _success_row(row: Success) -> tuple[str, ...]:
    own = "" if row.works is None else f"{row.works_ok:,} of {row.works:,}"
    score = "-" if row.score is None else f"{row.score:.2f}"
    return row.name, f"{row.runs:,}", f"{row.ended_ok:,}", score, f"{row.solved:,}", percent(row.solved_rate), own


def _attribution(found: Attribution) -> Section:
    agents = ", ".join(f"{agent} {runs:,}" for agent, runs in found.by_agent().items() if agent != "-")
    nowhere = found.by_agent().get("-", 0)
    silent = f"{'; ' if agents else ''}in {nowhere:,} no step failed" if nowhere else ""
    return Section(
        topic="attribution",
        heading="Where it broke first",
        note=f"{found.unsolved:,} of {count(found.runs, 'run')} were not solved. First failure: {agents}{silent}. "
        "Recovered: runs in which that agent's own work ended well all the same.",
        columns=(">runs", "agent", ">turn", "what broke", "tool", ">recovered", "example"),
        rows=tuple(
            (
                f"{one.runs:,}",
                one.agent or "-",
                str(one.step or "-"),
                one.kind,
                one.tool or "",
                f"{one.recovered:,}" if one.recovered else "",
                one.example[:8],
            )
            for one in found.breaks
        ),
    )


def _steps(found: Compounding) -> Section:
    assert found.expected is not None and found.observed is not None and found.gap is not None
    return Section(
        topic="steps",
        heading="How steps add up",
        note="If steps failed independently and nothing were repaired, "
        f"{percent(found.expected)} of runs would succeed; {percent(found.observed)} were solved: "
        f"a gap of {100 * found.gap:+.1f} points.",
        columns=(">step", ">steps", ">right", ">accuracy", ">product", ">runs that end here"),
        rows=tuple(
            (
                str(one.position),
                f"{one.steps:,}",
                f"{one.right:,}",
                percent(one.accuracy),
                percent(one.product),
                f"{one.last:,}",
            )
            for one in found.positions
        ),
    )


def _latency(found: tuple[Latency, ...]) -> Section:
    calls = [one for one in found if one.kind == "model"]
    measured, made = sum(one.measured for one in calls), sum(one.count for one in calls)
    engine = "the server's own account is of" if measured else "the server gave no account of"
    names = {"run": "whole runs", "agent": "agent at work", "model": "its model calls", "tool": "tool"}
    return Section(
        topic="latency",
        heading="How long it takes",
        note=f"Seconds; {engine} {f'{measured:,} of ' if measured else ''}{count(made, 'model call')}.",
        columns=("", "", ">count", ">P50", ">P90", ">P99", ">queue P50/P90", ">prefill P50/P90", ">decode P50/P90"),
        rows=tuple(
            (
                names[one.kind],
                one.name,
                f"{one.count:,}",
                *(f"{seconds:.2f}" for seconds in (one.seconds.p50, one.seconds.p90, one.seconds.p99)),
                *map(_pair, (one.queue, one.prefill, one.decode)),
            )
            for one in found
        ),
    )


def _pair(quantiles: Quantiles | None) -> str:
    return "" if quantiles is None else f"{quantiles.p50:.2f} / {quantiles.p90:.2f}"


def _cost(found: Cost) -> Section:
    return Section(
        topic="cost",
        heading="What a solved task costs",
        note=cost_words(found),
        columns=("agent", "policy", ">calls", ">input", ">from cache", ">output", f">{found.currency}"),
        rows=tuple(
            (
                one.agent,
                one.policy,
                f"{one.calls:,}",
                f"{one.usage.input_tokens:,}",
                percent(one.cache_hit_rate),
                f"{one.usage.output_tokens:,}",
                "" if one.money is None else f"{one.money:.4f}",
            )
            for one in found.spent
        ),
    )


def _critical_path(path: CriticalPath) -> Section:
    whole = path.seconds or 1.0
    return Section(
        topic="critical path",
        heading="What the slowest run waited for",
        note=f"Run {path.trace_id[:8]} took {duration(path.seconds)}. These spans in turn were what it waited for; "
        "times are their own, without what is below them.",
        columns=("agent", "", "span", ">seconds", ">share"),
        rows=tuple(
            (
                share.agent or "-",
                share.assignment or "",
                share.name,
                f"{share.seconds:.2f}",
                percent(share.seconds / whole),
            )
            for share in path.shares
        ),
    )


def _capture(found: tuple[Captured, ...]) -> Section:
    agents: dict[str, list[Captured]] = {}
    for one in found:
        agents.setdefault(one.agent, []).append(one)
    rows = []
    for agent, captured in agents.items():
        turns = sum(one.turns for one in captured)
        fit = sum(one.turns for one in captured if one.refusal is None)
        refused = ", ".join(f"{one.refusal} {one.turns:,}" for one in captured if one.refusal is not None)
        rows.append((agent, f"{turns:,}", f"{fit:,}", percent(fit / turns), refused))
    return Section(
        topic="capture",
        heading="What can be learned from",
        note="Turns that meet the capture contract, and why the others do not.",
        columns=("agent", ">turns", ">learnable", ">learnable %", "refused"),
        rows=tuple(rows),
    )


def _rings(found: tuple[str, ...]) -> Section:
    return Section(
        topic="rings",
        heading="What is no tree",
        note=f"In {count(len(found), 'run')} a span's parents form a ring: it is shown as a root, and marked.",
        columns=("run",),
        rows=tuple((trace_id[:8],) for trace_id in found),
    )
