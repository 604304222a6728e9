"""Reports: many traces as a table, one as a tree, for a person at a terminal."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from journeyman.traces.assemble import refusal
from journeyman.traces.labels import Label
from journeyman.traces.messages import Message, Usage
from journeyman.traces.record import Record
from journeyman.traces.store import Ending, ending
from journeyman.traces.trace import ToolResult, Trace, Trajectory, Turn

SCORE = "score"
"""The label that the table shows."""

SHORT = 160
"""Characters of a text that are shown when it is not shown in full."""

COLOURS = {"ok": "green", "failed": "red", "timeout": "red", "invalid": "red", "skipped": "dim"}
"""Every other status is yellow."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Summary(Record):
    """One trace in a row."""

    trace_id: str
    started_ns: int
    seconds: float
    crew: str | None
    task_id: str | None
    family: str | None
    prompt: str | None
    status: Ending
    score: bool | float | str | None
    agents: int
    turns: int
    usage: Usage


def summarise(trace: Trace) -> Summary:
    score = trace.label(SCORE)
    return Summary(
        trace_id=trace.trace_id,
        started_ns=trace.started_ns,
        seconds=trace.seconds,
        crew=trace.crew,
        task_id=trace.task and trace.task.id,
        family=trace.task and trace.task.family,
        prompt=trace.task and trace.task.prompt,
        status=ending(trace),
        score=score and score.value,
        agents=len({trajectory.agent for trajectory in trace.trajectories}),
        turns=len(trace.turns),
        usage=trace.usage,
    )


def table(summaries: Iterable[Summary], *, now_ns: int) -> Table:
    """A row for each trace, in the order given."""
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0), expand=True)
    grid.add_column("TRACE", no_wrap=True, style="cyan")
    grid.add_column("AGE", justify="right", no_wrap=True)
    grid.add_column("CREW", no_wrap=True, max_width=12, overflow="ellipsis")
    grid.add_column("TASK", no_wrap=True, ratio=1, min_width=16, overflow="ellipsis")
    grid.add_column("STATUS", no_wrap=True)
    for name in ("SCORE", "AGENTS", "TURNS", "TOKENS", "TIME"):
        grid.add_column(name, justify="right", no_wrap=True)
    for summary in summaries:
        grid.add_row(
            summary.trace_id[:8],
            _age(now_ns - summary.started_ns),
            Text(summary.crew or "?"),
            Text(_line(summary.prompt or "?")),
            _status(summary.status),
            _value(summary.score),
            str(summary.agents),
            str(summary.turns),
            f"{summary.usage.tokens:,}",
            _duration(summary.seconds),
        )
    return grid


def tree(trace: Trace, *, full: bool = False) -> RenderableType:
    """The run as a tree of agents, turns and tool calls; with `full` every text is whole and prompts are shown."""
    by_span: dict[str | None, list[Label]] = {}
    for label in trace.labels:
        by_span.setdefault(label.span_id, []).append(label)
    view = _View(trace.started_ns, by_span, full)
    root = Tree(view.heading(trace), guide_style="dim")
    branches: dict[str | None, Tree] = {None: root}
    for trajectory in trace.trajectories:
        above = branches.get(trajectory.parent, root)
        branches[trajectory.span_id] = view.add(trajectory, above)
    return root


class _View:
    def __init__(self, started_ns: int, labels: Mapping[str | None, list[Label]], full: bool) -> None:
        self._started_ns = started_ns
        self._labels = labels
        self._full = full

    def heading(self, trace: Trace) -> RenderableType:
        outcome, task, usage = trace.outcome, trace.task, trace.usage
        first = _join(
            Text(trace.crew or "unknown crew", "bold"),
            _status(ending(trace)),
            _duration(trace.seconds),
            _count(len(trace.trajectories), "agent at work", "agents at work"),
            _count(len(trace.turns), "turn"),
            _tokens(usage),
        )
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        started = datetime.fromtimestamp(trace.started_ns / 1e9).astimezone()
        grid.add_row("trace", Text(f"{trace.trace_id} · {started:%Y-%m-%d %H:%M:%S %Z}"))
        if task is not None:
            grid.add_row("task", Text(f"{task.id} · {task.family}"))
            grid.add_row("prompt", self._text(task.prompt))
        if outcome is not None and outcome.answer:
            grid.add_row("answer", self._text(outcome.answer))
        if outcome is not None and outcome.error:
            grid.add_row("error", self._text(outcome.error, "red"))
        for label in self._labels.get(None, []):
            grid.add_row("label", _label(label))
        return Group(first, grid)

    def add(self, trajectory: Trajectory, above: Tree) -> Tree:
        """Hangs one agent's work under the agent that started it."""
        name = f"{trajectory.agent or 'unknown agent'}" + (f" {trajectory.assignment}" if trajectory.assignment else "")
        lines: list[RenderableType] = [
            _join(
                Text(name, "bold cyan"),
                _status(trajectory.status or "unfinished"),
                self._span(trajectory.started_ns, trajectory.ended_ns),
            )
        ]
        if trajectory.goal:
            lines.append(self._named("goal", trajectory.goal))
        if trajectory.output not in (None, "", []):
            lines.append(self._named("output", _plain(trajectory.output)))
        if trajectory.error:
            lines.append(self._named("error", trajectory.error, "red"))
        branch = above.add(Group(*lines))
        seen: tuple[Message, ...] = ()
        for turn in trajectory.turns:
            self._add_turn(turn, trajectory, seen, branch)
            seen = turn.messages
        if trajectory.plan is not None:
            branch.add(self._plan(trajectory.plan))
        self._add_labels(trajectory.span_id, branch)
        return branch

    def _add_turn(self, turn: Turn, trajectory: Trajectory, seen: tuple[Message, ...], above: Tree) -> None:
        refused = f"not training data: {reason}" if (reason := refusal(turn, trajectory)) else ""
        policy = turn.policy if turn.served_by in (None, turn.policy) else f"{turn.policy}, served by {turn.served_by}"
        lines: list[RenderableType] = [
            _join(
                Text(policy, "magenta"),
                self._span(turn.started_ns, turn.ended_ns),
                _tokens(turn.usage),
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
        arguments = ", ".join(f"{name}={_plain(value)}" for name, value in result.arguments.items())
        call = Text.assemble((result.tool, "blue"), "(", self._text(arguments), ")")
        first = _join(call, _status(result.status), self._span(result.started_ns, result.ended_ns))
        return Group(first, self._text(result.content, "dim"))

    def _plan(self, plan: Any) -> RenderableType:
        """The plan, one assignment to a line; a plan of another form as it is."""
        assignments = plan.get("assignments") if isinstance(plan, dict) else None
        if not isinstance(assignments, list):
            return self._named("plan", _plain(plan))
        lines = [Text("plan", "dim")]
        for row in assignments:
            after = [f"for each of {row['each']}"] if row.get("each") else []
            after += [f"after {', '.join(row['needs'])}"] if row.get("needs") else []
            what = Text.assemble(
                f"{row.get('id')} ", (str(row.get("worker")), "cyan"), " ", self._text(str(row.get("goal")))
            )
            lines.append(_join(what, *[Text(text, "dim") for text in after]))
        return Group(*lines)

    def _add_labels(self, span_id: str, branch: Tree) -> None:
        for label in self._labels.get(span_id, []):
            branch.add(Text.assemble(("label ", "dim"), _label(label)))

    def _named(self, name: str, text: str, style: str = "") -> Text:
        return Text.assemble((f"{name} ", "dim"), self._text(text, style))

    def _text(self, text: str, style: str = "") -> Text:
        # Text, never markup: a reply may hold square brackets.
        return Text(_visible(text) if self._full else _shortened(_line(text)), style)

    def _span(self, started_ns: int, ended_ns: int) -> Text:
        after = max(0, started_ns - self._started_ns) / 1e9
        return Text(f"{_duration((ended_ns - started_ns) / 1e9)} at +{after:.2f}", "dim")


def _join(*parts: Text | str | None) -> Text:
    return Text(" · ").join([part if isinstance(part, Text) else Text(part) for part in parts if part])


def _new(messages: tuple[Message, ...], seen: tuple[Message, ...]) -> tuple[Message, ...]:
    """What a prompt adds to the one of the turn before."""
    return messages[len(seen) :] if messages[: len(seen)] == seen else messages


def _status(status: str) -> Text:
    return Text(status, COLOURS.get(status, "yellow"))


def _label(label: Label) -> Text:
    text = Text.assemble(f"{label.name} ", (_value(label.value), "bold"), (f" by {label.source}", "dim"))
    return text.append(f": {label.comment}" if label.comment else "")


def _value(value: bool | float | str | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _tokens(usage: Usage) -> str:
    return f"{usage.input_tokens:,} → {usage.output_tokens:,} tokens"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _line(text: str) -> str:
    return " ".join(_visible(text).split())


def _visible(text: str) -> str:
    """The text without control characters, with which a tool's result could take over the terminal."""
    return _CONTROL.sub("\ufffd", text)


def _shortened(text: str) -> str:
    return text if len(text) <= SHORT else text[: SHORT - 1].rstrip() + "…"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s"


def _age(ns: int) -> str:
    seconds = max(0, ns // 1_000_000_000)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
