"""Plans and reports: what an orchestrator asks for, and what comes back."""

from pydantic import JsonValue

from journeyman.agents.budget import Spent
from journeyman.traces.base import Record, Words
from journeyman.traces.trace import Status


class Assignment(Record):
    """One piece of a plan: which worker does what, and which outputs it waits for."""

    id: str
    worker: str
    goal: str
    """What to do; `{id}` stands for the output of the assignment of that id."""
    needs: tuple[str, ...] = ()
    """Assignments whose outputs the goal uses."""
    each: str | None = None
    """An assignment over whose values this one fans out, one worker each; `{id}` in the goal is the value."""
    value: str | None = None
    """For one branch of a fan-out: the value it stands for."""
    replaces: str | None = None
    """A failed assignment or branch in whose place the output of this one is used; only a replan has such."""

    @property
    def number(self) -> str:
        """The assignment's own number, for a branch too."""
        return self.id.partition(".")[0]

    @property
    def waits_for(self) -> tuple[str, ...]:
        return (*self.needs, self.each) if self.each and self.each not in self.needs else self.needs


class Plan(Record):
    """A directed acyclic graph of assignments; each waits only for ones before it."""

    assignments: tuple[Assignment, ...]
    replans: tuple[int, ...] = ()
    """How many assignments there were before each replan."""

    @property
    def leaves(self) -> tuple[Assignment, ...]:
        """Assignments that nothing else waits for: their outputs are the answer.

        A replacement is none: its output is used in the place of what it replaces.
        """
        waited = {need for assignment in self.assignments for need in assignment.waits_for}
        return tuple(one for one in self.assignments if one.id not in waited and one.replaces is None)

    def tried(self, assignment: Assignment) -> tuple[str, ...]:
        """Ids of the work in whose place `assignment` is done: what failed first, then what replaced that in vain."""
        if assignment.replaces is None:
            return ()
        first: dict[str, str] = {}
        for one in self.assignments[: int(assignment.number)]:
            if one.replaces is not None:
                first[one.id] = first.get(one.replaces, one.replaces)
        others = [id for id, failed in first.items() if failed == first[assignment.id] and id != assignment.id]
        return (first[assignment.id], *others)


class Report(Record):
    """How one assignment ended; `status` is the runtime's word, never the model's."""

    assignment: Assignment
    status: Status
    output: JsonValue = None
    """The worker's answer: a string, or a list of strings for an agent with `output = "values"`."""
    evidence: tuple[str, ...] = ()
    """Span ids of the tool calls that the output rests on: those that went well."""
    error: Words | None = None
    spent: Spent = Spent()
    """What the work cost; the runtime fills it in."""

    @property
    def values(self) -> tuple[str, ...]:
        """The output as a list of values, for fan-out and joining."""
        if self.status != "ok" or self.output is None:
            return ()
        return tuple(str(value) for value in self.output) if isinstance(self.output, list) else (str(self.output),)


class Answer(Record):
    """What a crew answers: outputs of reports as they are, and what they rest on."""

    text: str
    evidence: tuple[str, ...] = ()
    """Span ids of the tool calls behind every output that the text was made from, in the order of the plan."""
