"""The demo's crew for a quick run: its replies are cut off early, so that a small server has less to do."""

from journeyman.agents.agent import Agent, Crew


def terse(crew: Crew, tokens: int) -> Crew:
    """The crew with at most so many generated tokens a model call."""
    orchestrator = None if crew.orchestrator is None else _terse(crew.orchestrator, tokens)
    workers = tuple(_terse(worker, tokens) for worker in crew.workers)
    return crew.model_copy(update={"orchestrator": orchestrator, "workers": workers})


def _terse(agent: Agent, tokens: int) -> Agent:
    return agent.model_copy(update={"limits": agent.limits.model_copy(update={"tokens": tokens})})


class Plain:
    """Tells the stages on lines of their own."""

    def stage(self, title: str, minutes: float) -> None:
        print(f"-- {title}", flush=True)

    def step(self, done: int, total: int, note: str) -> None:
        pass
