"""FanOutQA as closed look-up: real questions, answered from the facts of their own human decompositions.

It is not the leaderboard's task: there all of Wikipedia is searched, here a look-up over the answered sub-questions of
the set's 310 dev questions is the only knowledge. Everything here is fixed by the data: there is nothing to seed.
"""

from functools import cache
from hashlib import sha256
from typing import Literal

from journeyman.agents.agent import Agent, Crew, Example, Limits
from journeyman.agents.orchestrator import write_plan
from journeyman.agents.plan import Assignment, Plan
from journeyman.agents.worker import write_answer, write_call
from journeyman.tools.retrieve import retrieve
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError
from journeyman.traces.messages import ToolCall
from journeyman.traces.trace import Task
from journeyman.training.data.demonstrations import Demonstration, Work, demonstrated
from journeyman.training.data.tasks.near import plain
from journeyman.training.demo.decompositions import WORKER, Finding, Question, read_questions

Split = Literal["train", "gate", "test"]

FAMILY = "fanoutqa"
ORCHESTRATOR = "orchestrator"
LOOKUP = "facts"
"""The look-up tool."""
FOUND = 2
"""Facts that a look-up returns."""
PATIENCE_S = 600.0
"""Seconds for one agent's work: with a dozen tasks at once on a small machine most of it is waiting for a turn."""

PLAN_INSTRUCTIONS = (
    "Split the task into look-ups. Reply with JSON. Ask for a list first, then with "
    '"each": 1 ask one question about every value {1} of it.'
)
LOOKUP_INSTRUCTIONS = (
    "Look up the question with facts, then copy the answer from the fact that fits, as a list. Reply with JSON."
)


def tasks(split: Split) -> tuple[Task, ...]:
    """The tasks of a split, in the wheel's order.

    A question belongs to a split by a hash of its id. What shares a question, sub-question or goal with a held-out
    task is left out, of train for gate and test, of gate for test, so that no plan can be learned by heart.
    """
    return tuple(
        Task(id=question.id, prompt=question.text, reference=question.answer, family=FAMILY)
        for question in _splits()[split]
    )


def facts(split: Split) -> tuple[str, ...]:
    """What can be looked up: the facts of the train tasks for `train`, of all 310 questions for the others."""
    questions = _splits()["train"] if split == "train" else read_questions()
    return tuple(dict.fromkeys(fact.document for question in questions for fact in question.facts))


def gold_plan(task: Task) -> Plan:
    """The human decomposition of a task as a plan."""
    for question in read_questions():
        if question.id == task.id and question.plan is not None:
            return question.plan
    raise ConfigError(f"task {task.id!r} is not one of the closed look-up's: people left no plan for it")


@cache
def findings(split: Split) -> dict[str, tuple[Finding, ...]]:
    """What people answered to each goal of a split; those who were asked the same may have answered differently."""
    answered: dict[str, tuple[Finding, ...]] = {}
    for question in _splits()[split]:
        for goal, finding in question.findings.items():
            answered[goal] = tuple(dict.fromkeys((*answered.get(goal, ()), finding)))
    return answered


def demonstrations(split: Split) -> dict[str, Demonstration]:
    """What people did on the tasks of a split, by task: a look-up of each goal, and the answer if it can be seen then.

    A goal that nobody was asked has no demonstration.
    """
    answered, look_up = findings(split), _look_up(split).function

    def done(assignment: Assignment) -> Work | None:
        goal = assignment.goal
        if goal not in answered:
            return None
        seen = str(look_up(goal)).splitlines()
        # The first answer whose document was found, or none: a finding that is out of sight would be a guess.
        values = next((finding.values for finding in answered[goal] if finding.document in seen), ())
        return Work(calls=((ToolCall(id="", name=LOOKUP, arguments={"query": goal}),),), answer=list(values))

    return {
        question.id: Demonstration(plan=question.plan, work=demonstrated(question.plan, done))
        for question in _splits()[split]
        if question.plan is not None
    }


def lookup_crew(split: Split, *, examples: bool = True) -> Crew:
    """An orchestrator that plans and a worker that looks up; `examples` are shown to the base model only."""
    orchestrator = Agent(
        name=ORCHESTRATOR,
        instructions=PLAN_INSTRUCTIONS,
        examples=_plan_examples() if examples else (),
        replans=0,  # Its adapter learns from plans alone: it would meet a replan unprepared.
        limits=Limits(turns=2, tokens=192, seconds=PATIENCE_S),
    )
    return Crew(
        name="lookup-crew",
        orchestrator=orchestrator,
        workers=(_worker(Limits(turns=2, tokens=96, seconds=PATIENCE_S), examples=examples),),
        tools={LOOKUP: _look_up(split)},
    )


def single_agent_crew(split: Split, *, examples: bool = True) -> Crew:
    """The worker alone with the whole task and more turns, so that it may look up more than once."""
    return Crew(
        name="single-agent",
        orchestrator=None,
        workers=(_worker(Limits(turns=4, tokens=192, seconds=PATIENCE_S), examples=examples),),
        tools={LOOKUP: _look_up(split)},
    )


def bucket(question_id: str) -> Split:
    """The split of a question, before anything is left out."""
    percent = int(sha256(question_id.encode()).hexdigest()[:8], 16) % 100
    return "train" if percent < 57 else "gate" if percent < 72 else "test"


@cache
def _splits() -> dict[Split, tuple[Question, ...]]:
    usable = [question for question in read_questions() if question.plan is not None]
    splits: dict[Split, tuple[Question, ...]] = {}
    seen: set[str] = set()
    order: tuple[Split, ...] = ("test", "gate", "train")
    for split in order:
        splits[split] = tuple(
            question for question in usable if bucket(question.id) == split and not (_texts(question) & seen)
        )
        seen.update(*(_texts(question) for question in splits[split]))
    return splits


def _texts(question: Question) -> frozenset[str]:
    texts = (question.text, *(fact.text for fact in question.facts), *question.findings)
    return frozenset(map(plain, texts))


@cache
def _look_up(split: Split) -> Tool:
    # Nothing is said of it in the prompt: the examples show it, and adapters were trained on prompts like that.
    return retrieve(facts(split), k=FOUND, name=LOOKUP, description="")


def _worker(limits: Limits, *, examples: bool) -> Agent:
    return Agent(
        name=WORKER,
        instructions=LOOKUP_INSTRUCTIONS,
        examples=_lookup_examples() if examples else (),
        tools=(LOOKUP,),
        tool_first=True,
        output="values",
        limits=limits,
    )


def _examples_from() -> tuple[Question, ...]:
    """Train questions to show: short ones, in which every value was asked about."""
    fan_outs = [question for question in _splits()["train"] if question.plan and len(question.plan.assignments) == 2]
    whole = [question for question in fan_outs if len(question.findings) - 1 == len(_first(question).values) == 5]
    return tuple(sorted(whole, key=lambda question: question.id)[:3])


def _first(question: Question) -> Finding:
    return next(iter(question.findings.values()))


def _plan_examples() -> tuple[Example, ...]:
    return tuple(
        Example(user=question.text, assistant=write_plan(question.plan))
        for question in _examples_from()
        if question.plan is not None
    )


@cache
def _lookup_examples() -> tuple[Example, ...]:
    """Two look-ups, one that finds a list and one that finds a single value, each of two turns."""
    question = _examples_from()[0]
    goals = list(question.findings.items())
    look_up = _look_up("train").function
    examples: list[Example] = []
    for goal, finding in (goals[0], goals[1]):
        examples.append(Example(user=goal, assistant=write_call(LOOKUP, {"query": goal})))
        examples.append(Example(user=f"{LOOKUP}: {look_up(goal)}", assistant=write_answer(list(finding.values))))
    return tuple(examples)
