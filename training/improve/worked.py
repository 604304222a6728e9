"""Worked examples: an agent's recorded work in runs that were good, as rows that a prompt may show."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from journeyman.agents.agent import Agent, Crew, Example
from journeyman.agents.prompt import Prompt, prompt_form
from journeyman.agents.trim import TokenCount
from journeyman.runtime.workspace import Workspace
from journeyman.traces.messages import Message
from journeyman.traces.trace import Task, Trace, Trajectory
from journeyman.training.data.accepted import not_accepted
from journeyman.training.data.admission import Admission
from journeyman.training.data.samples import SFTSample
from journeyman.training.data.sft import ORIGINS
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.data.tasks.heldout import HeldOut, runs_of
from journeyman.training.evaluation.bench import evaluated

MOST = 64
"""Pieces of work that examples are chosen from; the shortest of them."""


class Shelf(NamedTuple):
    """What examples are chosen from."""

    rows: tuple[SFTSample, ...]
    """Each a whole piece of work: the last reply, behind all that led to it. Shortest first."""
    refused: dict[str, int]
    """Runs and pieces of work that may not be shown, by reason."""


def find_worked(
    workspace: Workspace, crew: Crew, agent: Agent, tasks: Sequence[Task], prompt: Prompt, min_score: float
) -> Shelf:
    """The agent's work in recorded runs of `tasks` that scored at least `min_score`; of equal pieces the first."""
    store, held_out = workspace.store, HeldOut.of(workspace)
    source = Source(store, agent.name, MineConfig(min_score=min_score), runs_of(store, tasks), held_out)
    refusals = {**not_accepted(store), **held_out.runs(store)}
    admission, scores = Admission(store, evaluated=evaluated(workspace)), source.scores()
    form, refused = prompt_form(agent, crew, prompt), Counter[str]()
    rows: dict[tuple[Example, ...], SFTSample] = {}
    for trace_id in store.ids(**source.wanted(None)):
        refusal = refusals.get(trace_id) or admission.refusal(trace_id)
        if refusal is None and (scores.get(trace_id) is None or (scores[trace_id] or 0.0) < min_score):
            refusal = f"score below {min_score:g}, or none"
        if refusal is not None:
            refused[refusal] += 1
            continue
        trace = store.get(trace_id)
        for trajectory in trace.trajectories:
            if trajectory.agent == agent.name:
                row = _row(trace, trajectory, Message(role="system", content=form.instructions))
                if isinstance(row, str):
                    refused[row] += 1
                elif (reason := held_out.messages([message.model_dump() for message in row.messages])) is not None:
                    refused[reason] += 1
                else:
                    origin = ORIGINS[admission.origin(trace_id)]
                    row = row.model_copy(update={"origin": origin, "prompt_form": form.digest})
                    rows.setdefault(examples_of(row), row)
    shortest = sorted(rows.values(), key=lambda row: (tokens_of(examples_of(row)), row.trace_id, row.span_ids))
    return Shelf(tuple(shortest[:MOST]), dict(refused.most_common()))


def examples_of(row: SFTSample) -> tuple[Example, ...]:
    """The piece of work as a prompt shows it: what the agent was given and what it said, turn after turn."""
    said = [*(message.content for message in row.messages[1:]), row.completion]
    return tuple(Example(user=user, assistant=reply) for user, reply in zip(said[::2], said[1::2], strict=True))


def tokens_of(examples: Sequence[Example]) -> int:
    """As estimated."""
    texts = (text for example in examples for text in (example.user, example.assistant))
    return TokenCount()(tuple(Message(role="user", content=text) for text in texts))


def _row(trace: Trace, trajectory: Trajectory, system: Message) -> SFTSample | str:
    """Or why the work can't be shown, in words fit for counting."""
    turns = trajectory.turns
    if trajectory.status != "ok" or not turns:
        return f"trajectory {trajectory.status}"
    if any(turn.error is not None or turn.withheld is not None or turn.response is None for turn in turns):
        return "a reply that failed, or isn't recorded whole"
    goal = trajectory.goal or (trace.task.prompt if trace.task is not None else "")
    messages, reply = turns[-1].messages, turns[-1].response
    assert reply is not None
    starts = [i for i, message in enumerate(messages) if message.role == "user" and message.content == goal]
    work = messages[starts[-1] :] if starts else ()
    if len(work) != 2 * len(turns) - 1:
        return "a prompt in which its work can't be told from the rest"
    if any(message.role == "tool" or message.tool_calls for message in (*work, reply)):
        return "calls in the model's own template, which an example can't show"
    return SFTSample(
        agent=trajectory.agent,
        policy=turns[-1].policy,
        trace_id=trace.trace_id,
        span_ids=tuple(turn.span_id for turn in turns),
        messages=(system, *work),
        completion=reply.content,
    )
