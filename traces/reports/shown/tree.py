"""The tree: one run as a person reads it, agents, turns and tool calls, with what repeats itself folded away."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from journeyman.traces.assemble import refusal
from journeyman.traces.labels import Label
from journeyman.traces.messages import Message
from journeyman.traces.reports.critical_path import CriticalPath, critical_path
from journeyman.traces.reports.shown.folding import Fold, folded_agents, folded_turns
from journeyman.traces.reports.wording import (
    count,
    duration,
    joined,
    line,
    percent,
    plain,
    scalar,
    shortened,
    status_text,
    tokens,
    visible,
)
from journeyman.traces.trace import ToolResult, Trace, Trajectory, Turn, ending

CRITICAL = "◆"
"""Stands by what the run waited for."""

IN_RING = "its parents form a ring"

LONGEST = 5
"""Steps of the critical path that the heading names."""


def tree(trace: Trace, *, full: bool = False) -> RenderableType:
    """The run as a tree; with `full` nothing is folded, every text is whole and prompts are shown."""
    view = _View(trace, full)
    root = Tree(view.heading(), guide_style="dim")
    view.add_all(root)
    return root


class _View:
    def __init__(self, trace: Trace, full: bool) -> None:
        self._trace = trace
        self._full = full
        self._path = critical_path(trace)
        self._critical = self._path.span_ids
        self._labels: dict[str | None, list[Label]] = {}
        for label in trace.labels:
            self._labels.setdefault(label.span_id, []).append(label)

    def heading(self) -> RenderableType:
        trace = self._trace
        outcome, task = trace.outcome, trace.task
        first = joined(
            Text(trace.crew or "unknown crew", "bold"),
            status_text(ending(trace)),
            duration(trace.seconds),
            count(len(trace.trajectories), "agent at work", "agents at work"),
            count(len(trace.turns), "turn"),
            tokens(trace.usage),
        )
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        started = datetime.fromtimestamp(trace.started_ns / 1e9).astimezone()
        grid.add_row("trace", Text(f"{trace.trace_id} · {started:%Y-%m-%d %H:%M:%S %Z}"))
        if task is not None:
            grid.add_row("task", Text(f"{task.id} · {task.family}"))
            if (origin := trace.origin) is not None:
                grid.add_row("made for", joined(Text(origin.purpose), self._text(origin.task_set or "")))
            if task.session or task.user:
                grid.add_row("asked", joined(self._text(task.session or ""), self._text(task.user or "")))
            grid.add_row("prompt", self._text(task.prompt))
        if outcome is not None and outcome.answer:
            grid.add_row("answer", self._text(outcome.answer))
        if outcome is not None and outcome.error:
            grid.add_row("error", self._text(outcome.error, "red"))
        for label in self._labels.get(None, []):
            grid.add_row("label", _label(label))
        if trace.trajectories:
            grid.add_row(f"path {CRITICAL}", waits(self._path))
        return Group(first, grid)

    def add_all(self, root: Tree) -> None:
        """Hangs each agent's work under the agent that started it."""
        known = {trajectory.span_id for trajectory in self._trace.trajectories}
        below: dict[str | None, list[Trajectory]] = {}
        for trajectory in self._trace.trajectories:
            below.setdefault(trajectory.parent if trajectory.parent in known else None, []).append(trajectory)
        waiting: list[tuple[str | None, Tree]] = [(None, root)]
        while waiting:
            parent, above = waiting.pop()
            for found in self._agents(below.get(parent, [])):
                if isinstance(found, Fold):
                    above.add(self._fold(found))
                else:
                    waiting.append((found.span_id, self._add(found, above)))

    def _agents(self, agents: Sequence[Trajectory]) -> Iterator[Trajectory | Fold]:
        return iter(agents) if self._full else folded_agents(agents, self._marked)

    def _marked(self, span_id: str) -> bool:
        return span_id in self._labels or span_id in self._critical

    def _add(self, trajectory: Trajectory, above: Tree) -> Tree:
        name = f"{trajectory.agent or 'unknown agent'}" + (f" {trajectory.assignment}" if trajectory.assignment else "")
        lines: list[RenderableType] = [
            joined(
                Text(name, "bold cyan"),
                status_text(trajectory.status or "unfinished"),
                self._span(trajectory),
                Text(IN_RING, "yellow") if trajectory.in_ring else None,
            )
        ]
        if trajectory.goal:
            lines.append(self._named("goal", trajectory.goal))
        if trajectory.output not in (None, "", []):
            lines.append(self._named("output", plain(trajectory.output)))
        if trajectory.error:
            lines.append(self._named("error", trajectory.error, "red"))
        branch = above.add(Group(*lines))
        seen: tuple[Message, ...] = ()
        for found in trajectory.turns if self._full else folded_turns(trajectory.turns, self._labels.__contains__):
            if isinstance(found, Fold):
                branch.add(self._fold(found))
            else:
                self._add_turn(found, trajectory, seen, branch)
                seen = found.messages
        if trajectory.plan is not None:
            branch.add(self._plan(trajectory.plan))
        self._add_labels(trajectory.span_id, branch)
        return branch

    def _fold(self, fold: Fold) -> Text:
        critical = f" · {CRITICAL} {fold.critical(self._critical)} of them" if fold.critical(self._critical) else ""
        return Text(f"… {joined(*fold.words)}{critical}", "dim italic")

    def _add_turn(self, turn: Turn, trajectory: Trajectory, seen: tuple[Message, ...], above: Tree) -> None:
        refused = f"not training data: {reason}" if (reason := refusal(turn, trajectory)) else ""
        policy = turn.policy if turn.served_by in (None, turn.policy) else f"{turn.policy}, served by {turn.served_by}"
        lines: list[RenderableType] = [
            joined(
                Text(policy, "magenta"),
                self._span(turn),
                tokens(turn.usage),
                Text(_engine(turn), "dim"),
                Text("demonstration", "dim") if turn.demonstration else None,
                Text("call failed", "red") if turn.error is not None else Text(refused, "yellow"),
            )
        ]
        if self._full:
            lines += [self._named(message.role, message.content) for message in _new(turn.messages, seen)]
        if turn.response is not None:
            lines.append(self._text(turn.response.content))
        if turn.error is not None and turn.error != trajectory.error:
            lines.append(self._named("error", turn.error, "red"))
        branch = above.add(Group(*lines))
        for result in turn.tool_results:
            branch.add(self._tool(result))
        self._add_labels(turn.span_id, branch)

    def _tool(self, result: ToolResult) -> RenderableType:
        arguments = ", ".join(f"{name}={plain(value)}" for name, value in result.arguments.items())
        call = Text.assemble((result.tool, "blue"), "(", self._text(arguments), ")")
        first = joined(call, status_text(result.status), self._span(result))
        return Group(first, self._text(result.content, "dim"))

    def _plan(self, plan: Any) -> RenderableType:
        """The plan, one assignment to a line; a plan of another form as it is."""
        assignments = plan.get("assignments") if isinstance(plan, dict) else None
        if not isinstance(assignments, list):
            return self._named("plan", plain(plan))
        lines = [Text("plan", "dim")]
        for row in assignments:
            after = [f"for each of {row['each']}"] if row.get("each") else []
            after += [f"after {', '.join(row['needs'])}"] if row.get("needs") else []
            what = Text.assemble(
                f"{row.get('id')} ", (str(row.get("worker")), "cyan"), " ", self._text(str(row.get("goal")))
            )
            lines.append(joined(what, *[Text(text, "dim") for text in after]))
        return Group(*lines)

    def _add_labels(self, span_id: str, branch: Tree) -> None:
        for label in self._labels.get(span_id, []):
            branch.add(Text.assemble(("label ", "dim"), _label(label)))

    def _named(self, name: str, text: str, style: str = "") -> Text:
        return Text.assemble((f"{name} ", "dim"), self._text(text, style))

    def _text(self, text: str, style: str = "") -> Text:
        # Text, never markup: a reply may hold square brackets.
        return Text(visible(text) if self._full else shortened(line(text)), style)

    def _span(self, span: Trajectory | Turn | ToolResult) -> Text:
        after = max(0, span.started_ns - self._trace.started_ns) / 1e9
        text = Text(f"{duration((span.ended_ns - span.started_ns) / 1e9)} at +{after:.2f}", "dim")
        return text.append(f" {CRITICAL}", "bold yellow") if span.span_id in self._critical else text


def waits(path: CriticalPath) -> Text:
    """What the run's duration was made of, the longest first."""
    seconds: dict[str, float] = defaultdict(float)
    for share in path.shares:
        seconds[" ".join(filter(None, [share.name or share.kind, share.assignment]))] += share.seconds
    ranked = sorted(seconds.items(), key=lambda row: -row[1])
    whole = path.seconds or 1.0
    parts = [f"{name} {duration(took)} ({percent(took / whole)})" for name, took in ranked[:LONGEST]]
    rest = sum(took for _, took in ranked[LONGEST:])
    return joined(*parts, f"{count(len(ranked) - LONGEST, 'other')} {duration(rest)}" if rest else None)


def _engine(turn: Turn) -> str:
    """What the server says of the call's time."""
    parts = {"queue": turn.queue_s, "prefill": turn.prefill_s, "decode": turn.decode_s}
    return ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items() if seconds is not None)


def _new(messages: tuple[Message, ...], seen: tuple[Message, ...]) -> tuple[Message, ...]:
    """What a prompt adds to the one of the turn before."""
    return messages[len(seen) :] if messages[: len(seen)] == seen else messages


def _label(label: Label) -> Text:
    text = Text.assemble(f"{label.name} ", (scalar(label.value), "bold"), (f" by {label.source}", "dim"))
    return text.append(f": {label.comment}" if label.comment else "")
