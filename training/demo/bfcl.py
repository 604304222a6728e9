"""BFCL as a task set: a question and the signatures of functions; the answer is the call that settles it.

The data is the Berkeley Function Calling Leaderboard's (Patil et al. 2025; Apache-2.0), read from the installed wheel
`bfcl-eval` and never copied. The score follows its AST checker for Python: a call is right or wrong.
"""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Any, Literal

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.demo.call_check import Function, is_right
from journeyman.training.demo.wheels import wheel_file

Category = Literal["simple", "multiple"]

WHEEL = "bfcl-eval"
VERSION = "2026.3.23"
FILES: Mapping[Category, str] = {"simple": "BFCL_v4_simple_python.json", "multiple": "BFCL_v4_multiple.json"}

CALLER = "caller"
INSTRUCTIONS = (
    "Answer with the one function call that settles the question, as in f(x=1, names=['a', 'b']). "
    "Leave out what the question doesn't say. Reply with JSON."
)
SCORER = "journeyman.training.demo.bfcl:call_score"


@cache
def tasks(category: Category) -> tuple[Task, ...]:
    """The tasks of a category, in the wheel's order; raises `ConfigError` where the wheel isn't there.

    `simple` shows one function, `multiple` two to four of which one fits. A task's reference has the values that each
    argument may have, its metadata the functions, and its demonstration the call written out.
    """
    answers = {row["id"]: row["ground_truth"][0] for row in _rows(f"possible_answer/{FILES[category]}")}
    return tuple(_task(category, row, answers[row["id"]]) for row in _rows(FILES[category]))


def parts(all_tasks: Sequence[Task], shares: Sequence[float], *, seed: int = 0) -> list[list[Task]]:
    """The tasks in parts of about those shares, by a hash: tasks that ask for one function are in one part."""
    ends = [sum(shares[: number + 1]) for number in range(len(shares))]
    made: list[list[Task]] = [[] for _ in shares]
    for task in all_tasks:
        digest = sha256(f"{seed}:{_expected(task)[0]}".encode()).digest()
        at = int.from_bytes(digest[:8]) / 2**64 * ends[-1]
        made[next(number for number, end in enumerate(ends) if at < end)].append(task)
    return made


def caller_crew(tokens: int = 128) -> Crew:
    """One agent that writes the call; `tokens` is the longest reply."""
    agent = Agent(name=CALLER, instructions=INSTRUCTIONS, limits=Limits(turns=1, repairs=0, tokens=tokens, seconds=900))
    return Crew(name="function-calls", orchestrator=None, workers=(agent,))


def call_score(task: Task, answer: str) -> float:
    """1 for a call that BFCL's AST checker takes, else 0; raises `ConfigError` for a task of another set."""
    call = read_call(answer)
    if call is None:
        return 0.0
    name, possible = _expected(task)
    function = next((one for one in _functions(task) if one["name"] == name), None)
    if function is None:
        raise ConfigError(f"task {task.id!r} shows no function {name!r}: write it in metadata.functions")
    return float(call[0] == name and is_right(call[1], possible, function))


def read_call(text: str) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of a call such as `math.hypot(x=4, y=5)`; None where the text is anything else."""
    try:
        said = ast.parse(text.strip(), mode="eval").body
        if not isinstance(said, ast.Call) or said.args:
            return None
        return ast.unparse(said.func), {str(word.arg): ast.literal_eval(word.value) for word in said.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None


def _rows(name: str) -> Iterator[dict[str, Any]]:
    path = wheel_file(WHEEL, VERSION, f"bfcl_eval/data/{name}")
    return (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def _task(category: Category, row: Mapping[str, Any], answer: dict[str, Any]) -> Task:
    question, functions = row["question"][0][0]["content"], row["function"]
    return Task(
        id=row["id"],
        prompt="\n\n".join([*map(_signature, functions), question]),
        reference=answer,
        family=f"bfcl-{category}",
        metadata={"functions": functions},
        demonstration={"answer": _gold(answer, functions)},
    )


def _signature(function: Function) -> str:
    """A function as text: its name with its arguments and their types, what it does, and what each argument is."""
    parameters = function["parameters"]
    required = parameters.get("required", ())
    arguments = [
        f"{name}: {_type(detail)}{'' if name in required else ' = None'}"
        for name, detail in parameters["properties"].items()
    ]
    told = [f"- {name}: {detail.get('description', '')}" for name, detail in parameters["properties"].items()]
    return "\n".join([f"{function['name']}({', '.join(arguments)})", function["description"], *told])


def _type(detail: Mapping[str, Any]) -> str:
    inner = detail.get("items", {}).get("type")
    return f"{detail['type']} of {inner}" if inner else str(detail["type"])


def _gold(answer: Mapping[str, Any], functions: Sequence[Function]) -> str:
    """The right call with the fewest arguments."""
    ((name, possible),) = answer.items()
    required = next(one for one in functions if one["name"] == name)["parameters"].get("required", ())
    said = {key: values for key, values in possible.items() if key in required or "" not in values}
    return f"{name}({', '.join(f'{key}={_plain(values)!r}' for key, values in said.items())})"


def _plain(values: Sequence[Any]) -> Any:
    """The first of the values that an argument may have; those within an object have several each, too."""
    first = next((value for value in values if value != ""), "")
    if isinstance(first, dict):
        return _entries(first)
    return [_entries(one) if isinstance(one, dict) else one for one in first] if isinstance(first, list) else first


def _entries(written: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {key: _plain(values) for key, values in written.items() if "" not in values}


def _expected(task: Task) -> tuple[str, dict[str, Any]]:
    """The function to call, and by argument the values that it may have."""
    if isinstance(task.reference, dict) and len(task.reference) == 1:
        ((name, possible),) = task.reference.items()
        if isinstance(possible, dict):
            return name, possible
    raise ConfigError(f"task {task.id!r} isn't one of BFCL's: its reference must name a function and its arguments")


def _functions(task: Task) -> list[dict[str, Any]]:
    functions = task.metadata.get("functions")
    return [one for one in functions if isinstance(one, dict)] if isinstance(functions, list) else []
