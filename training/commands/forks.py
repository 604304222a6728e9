"""What `journeyman mine` does besides reading: it draws alternatives, and finds out what each model call was worth."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, NamedTuple

import typer
from rich.table import Table

from journeyman.runtime.console import out, progress
from journeyman.runtime.replay.fork import Replacement
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Purpose, Task
from journeyman.training.data.credit import RULE, TERMS, Credit, Credits, credit_agent
from journeyman.training.data.source import Source
from journeyman.training.forks.alternatives import Alternative, Alternatives, Step
from journeyman.training.forks.counterfactual import (
    RESAMPLE,
    SERVICE,
    choose_steps,
    credit_agents,
    credit_steps,
    replacements,
)
from journeyman.training.forks.runs import Forkable
from journeyman.training.forks.sample import choose_draws
from journeyman.training.rewards import solved

CREDIT = ("rule", "counterfactual")

SampleOption = Annotated[
    int | None, typer.Option("--sample", metavar="N", help="First draw N alternatives to recorded calls; needs --crew")
]
CreditOption = Annotated[
    str | None, typer.Option("--credit", metavar="|".join(CREDIT), help="Weigh rows by what each call was worth, 0..1")
]
MinCreditOption = Annotated[float | None, typer.Option("--min-credit", help="Only calls that were worth at least this")]
ReplaceOption = Annotated[
    str,
    typer.Option(
        "--replace",
        metavar="POLICY",
        help="Whose reply replaces a call for counterfactual credit: a policy, `service`, or `resample` of that one",
    ),
]
BudgetOption = Annotated[
    int | None,
    typer.Option("--budget", metavar="CALLS", help="Model calls that --sample or counterfactual credit may make"),
]


class Forking(NamedTuple):
    """What runs are forked with."""

    workspace: Workspace
    crew: Path | None
    scorer: str
    budget: int | None
    tasks: Sequence[Task]
    """Whose references runs without one are scored with."""

    def take(
        self,
        source: Source,
        option: str,
        purpose: Purpose,
        choose: Callable[[Forkable, int], Sequence[tuple[Step, Replacement]]],
    ) -> tuple[list[Alternative], dict[str, Any]]:
        """The alternatives that `choose` wants, and an account of them; `option` is what asked for them."""
        if self.crew is None:
            raise ConfigError(f"{option} needs --crew FILE: only its crew can take a run up again")
        if self.budget is None:
            raise ConfigError(f"{option} makes model calls: say how many it may with --budget, such as --budget 200")
        alternatives = Alternatives.open(self.workspace, self.crew, self.scorer, purpose=purpose, budget=self.budget)
        forkable = Forkable(source, alternatives.crew, alternatives.score, tasks=self.tasks)
        wanted = choose(forkable, self.budget)
        with progress() as bar:
            row = bar.add_task("forking, run", total=len(wanted))
            made = alternatives.take(wanted, on_alternative=lambda one: bar.advance(row))
        account = {
            "alternatives": len(made),
            "calls": alternatives.calls,
            "budget": self.budget,
            "left_out": alternatives.left_out,
            "astray": alternatives.astray,
            "refused_runs": dict(forkable.refused.most_common()),
        }
        return made, account


def check_credit(kind: str, credit: str | None, least: float | None) -> None:
    """Raises `ConfigError` where rows of that kind can't be weighed so, before anything is spent."""
    if credit is None and least is not None:
        raise ConfigError(f"--min-credit needs --credit, one of {', '.join(CREDIT)}: nothing else gives any")
    if credit is not None and credit not in CREDIT:
        raise ConfigError(f"--credit {credit}: there is no such credit; have {', '.join(CREDIT)}")
    if credit is not None and kind != "sft":
        raise ConfigError(f"--credit weighs rows of kind sft only: leave it out for --kind {kind}")


def draw(source: Source, n: int, forking: Forking) -> dict[str, Any]:
    """Draws alternatives, which are runs to be mined from then on, and tells of them."""
    made, account = forking.take(
        source, "--sample", "rollout", lambda forkable, budget: choose_draws(forkable, n, budget)
    )
    at = {(one.run, one.span_id) for one in made}
    return account | {"at_calls": len(at), "solved": sum(solved(one.score) for one in made)}


def credited(
    source: Source, kind: str, least: float | None, replace: str, forking: Forking
) -> tuple[Source, dict[str, Any]]:
    """The source with what each of the agent's calls was worth, and an account of it."""
    if kind == "rule":
        rule = RULE.model_copy(update={"label": source.config.label})
        credits = list(credit_agent(source.store.traces(**source.wanted(None)), source.agent, rule))
        rewards = {credit.span_id: credit.reward for credit in credits}
        account = _of_rule(credits)
    else:
        if replace not in (RESAMPLE, SERVICE):
            forking.workspace.config.check_policy(replace)
        made, spent = forking.take(
            source,
            "--credit counterfactual",
            "replay",
            lambda forkable, budget: choose_steps(forkable, replacements(replace), budget),
        )
        steps = credit_steps(made)
        rewards = {step.span_id: step.reward for step in steps}
        account = spent | {"replace": replace, "agents": [one.model_dump() for one in credit_agents(steps)]}
    return source._replace(credit=Credits(rewards, least)), {"credit": kind, "calls_credited": len(rewards), **account}


def _of_rule(credits: Sequence[Credit]) -> dict[str, Any]:
    means = {term: fmean(credit.terms[term] for credit in credits) if credits else None for term in TERMS}
    reward = fmean(credit.reward for credit in credits) if credits else None
    return {"weights": {term: getattr(RULE, term) for term in TERMS}, "means": means, "reward": reward}


def show_drawn(account: Mapping[str, Any]) -> None:
    out.print(
        f"{account['alternatives']} alternatives to {account['at_calls']} model calls, {account['solved']} of them "
        f"solve their task"
    )
    _show_spent(account)


def show_credited(account: Mapping[str, Any]) -> None:
    if account["credit"] == "rule":
        table = Table("credit", "weight", "mean", box=None)
        for term, mean in account["means"].items():
            table.add_row(term, f"{account['weights'][term]:g}", "-" if mean is None else f"{mean:.3f}")
        out.print(table)
        return
    _show_spent(account)
    for one in account["agents"]:
        out.print(
            f"replacing {one['agent']} by {account['replace']}: {one['effect']:+.3f} of score a call "
            f"({one['low']:+.3f} .. {one['high']:+.3f} at 95%), {one['steps']} calls of {one['runs']} runs, "
            f"{one['draws']} replays",
            markup=False,
        )


def _show_spent(account: Mapping[str, Any]) -> None:
    left_out = f"; {account['left_out']} were left out for want of budget" if account["left_out"] else ""
    astray = f"; {account['astray']} never came to their call" if account["astray"] else ""
    out.print(f"{account['calls']} of {account['budget']} model calls spent{left_out}{astray}")
    for reason, count in account["refused_runs"].items():
        out.print(f"{count} runs not forked: {reason}", markup=False)
