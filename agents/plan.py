"""Plans and reports: what an orchestrator asks for, and what comes back."""

from pydantic import JsonValue

from journeyman.traces.record import Record
from journeyman.traces.trace import Status


class Assignment(Record):
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

    @property
    def waits_for(self) -> tuple[str, ...]:
        return (*self.needs, self.each) if self.each and self.each not in self.needs else self.needs


class Plan(Record):
    """A directed acyclic graph of assignments; each waits only for ones before it."""

    assignments: tuple[Assignment, ...]

    @property
    def leaves(self) -> tuple[Assignment, ...]:
        """Assignments that nothing else waits for: their outputs are the answer."""
        waited = {need for assignment in self.assignments for need in assignment.waits_for}
        return tuple(assignment for assignment in self.assignments if assignment.id not in waited)


class Report(Record):
    """How one assignment ended; `status` is the runtime's word, never the model's."""

    assignment: Assignment
    status: Status
    output: JsonValue = None
    """The worker's answer: a string, or a list of strings for an agent with `output = "values"`."""
    evidence: tuple[str, ...] = ()
    """Span ids of the tool calls that the output rests on."""
    error: str | None = None

    @property
    def values(self) -> tuple[str, ...]:
        """The output as a list of values, for fan-out and joining."""
        if self.status != "ok" or self.output is None:
            return ()
        return tuple(str(value) for value in self.output) if isinstance(self.output, list) else (str(self.output),)
