"""The setting: everything that the runs of one runtime have in common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from journeyman.agents.agent import Crew
from journeyman.agents.model import ModelRequest, ModelTable
from journeyman.agents.prompt import Prompt, PromptForm
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.run.limiter import Limiter
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.prices import Price

if TYPE_CHECKING:
    from journeyman.runtime.models.routing import Router
    from journeyman.runtime.store.memory import Memory
    from journeyman.runtime.store.questions import Consent, Question
    from journeyman.runtime.store.run_store import RunStore


@dataclass(frozen=True, kw_only=True)
class Setting:
    crew: Crew
    crew_path: str | None
    """Its file, so that another process can go on with a run; None for a crew made in Python."""
    models: ModelTable
    tracer: Tracer
    policies: Callable[[], PolicyTable]
    """The table of the moment: each run asks once, when it starts."""
    router: "Router | None"
    prices: Mapping[str, Price]
    base_digest: str | None
    """Of the base model that the server has; None where it is not known."""
    limiter: Limiter
    """On model calls in flight, of all runs in all event loops: LangGraph's is per graph."""
    seed: int
    temperature: float
    memory: "Memory"
    runs: "RunStore | None"
    """Where runs are kept; None for runs that live in memory and can't wait for anybody."""
    words: "Callable[[Question], Consent | None] | None"
    """What a person said to each question about a plan or a text, in a run that is repeated and waits for nobody."""
    revise: Callable[[ModelRequest], ModelRequest] | None = None
    """How a call of a run that is repeated is asked otherwise than the crew would."""
    forms: dict[tuple[str, Prompt | None], PromptForm] = field(default_factory=dict)
    """By agent and what a prompt candidate says in place of the crew, once it has been at work."""
