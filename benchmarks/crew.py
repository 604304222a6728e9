"""Claim: on held-out tasks the trained crew beats the untrained one, and each of the two adapters earns a part of it.

Runs `journeyman demo --full` in the workspace (what is finished there is reused), then the held-out tasks once more
with each adapter swapped alone. All differences are paired by task.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _crews import Plain, terse
from _record import RESULTS, write_result
from _server import borrowed

from journeyman.agents.agent import Crew
from journeyman.runtime.adapters.live import AdapterServer, swap_in
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.training.demo import fanoutqa
from journeyman.training.demo.demo import FULL, Demo, DemoConfig
from journeyman.training.evaluation.evaluate import Episode, Summary, mean_interval, summarise

SCRATCH = DemoConfig(train_tasks=4, test_tasks=1, steps={"lookup": 3, "orchestrator": 3}, batch=1)
"""A quick run from nothing."""
AFTER_DEMO = DemoConfig(test_tasks=1)
"""A quick run in a workspace where `journeyman demo` has run: its adapters are used."""
FEW_TOKENS = 16
"""Of each reply in a quick run from nothing, whose adapters would never come to an end."""


def short_crew(split: fanoutqa.Split, *, examples: bool = True) -> Crew:
    return terse(fanoutqa.lookup_crew(split, examples=examples), FEW_TOKENS)


def gain(ours: Sequence[Episode], theirs: Sequence[Episode]) -> dict[str, float]:
    """Mean paired difference of the scores with its 95% interval, bootstrap over tasks."""
    scores = {episode.task_id: episode.score for episode in theirs}
    deltas = [episode.score - scores[episode.task_id] for episode in ours]
    low, high = mean_interval(deltas, confidence=0.95)
    return {"mean": sum(deltas) / len(deltas), "low": low, "high": high}


def measure(
    workspace: Workspace, config: DemoConfig, url: str | None, *, quick: bool, crew: Callable[..., Crew]
) -> dict[str, Any]:
    """`quick`: without the demo's own table, and all crews at once."""
    base_model = Path(pull_model(workspace.config.server.model))
    with workspace.create().lock("demo"), borrowed(workspace, url) as server, ThreadPoolExecutor() as pool:
        started = pool.submit(server)  # It comes up while adapters are trained.
        demo = Demo(workspace, config, base_model=base_model, server=started.result, progress=Plain(), crew=crew)
        result = None if quick else demo.run()
        trained = {adapter.agent: adapter.policy for adapter in demo.candidates()}
        crews: dict[str, Mapping[str, str]] = {
            "untrained": {},
            "orchestrator_only": {"orchestrator": trained["orchestrator"]},
            "lookup_only": {"lookup": trained["lookup"]},
            "both": trained,
        }
        print(f"-- {len(demo.test)} held-out tasks by each of {', '.join(crews)}", flush=True)
        if quick:
            state = started.result()  # With what is in service; what the demo did not promote is missing.
            with AdapterServer(state.url) as live, workspace.lock("swap"):
                for policy in sorted(set(trained.values()) - live.served().keys()):
                    swap_in(workspace, state, policy)
            episodes = dict(zip(crews, pool.map(demo.held_out, crews.values()), strict=True))
        else:
            episodes = {name: demo.held_out(policies) for name, policies in crews.items()}
    base = episodes["untrained"]
    return {
        "tasks": len(demo.test),
        "rows": [row.model_dump() for row in result.rows] if result else [],
        "adapters": [adapter.model_dump() for adapter in result.adapters] if result else [],
        "swapped": [summarise(name, episodes[name]).model_dump() for name in crews],
        "gain_over_untrained": {name: gain(episodes[name], base) for name in crews if name != "untrained"},
        "gain_of_both_over": {
            name: gain(episodes["both"], episodes[name]) for name in ("orchestrator_only", "lookup_only")
        },
    }


def show(values: Mapping[str, Any]) -> None:
    print(
        f"\n{'crew':20} {'score':>6}  {'95% interval':>14}  {'solved':>8} "
        f"{'tokens':>7} {'calls':>6} {'P50 s':>6} {'P90 s':>6}"
    )
    named = {row["name"]: row for row in [*values["rows"], *values["swapped"]]}
    for row in (Summary.model_validate(row) for row in named.values()):
        print(
            f"{row.name:20} {row.score:6.3f}  {row.low:6.3f} - {row.high:5.3f}  {row.solved:3} of {row.tasks:2} "
            f"{row.tokens_per_task:7.0f} {row.calls_per_task:6.1f} {row.p50_s:6.1f} {row.p90_s:6.1f}"
        )
    for name, found in values["gain_over_untrained"].items():
        print(f"{name} over untrained: {found['mean']:+.3f} ({found['low']:+.3f} .. {found['high']:+.3f})")
    for name, found in values["gain_of_both_over"].items():
        print(f"both over {name}: {found['mean']:+.3f} ({found['low']:+.3f} .. {found['high']:+.3f})")


def plot(values: Mapping[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    named = {row["name"]: row for row in [*values["rows"], *values["swapped"]] if row["name"] != "both"}
    order = ["do_nothing", "single_agent", "untrained", "orchestrator_only", "lookup_only", "trained", "oracle_plan"]
    rows = [named[name] for name in order]
    scores = [row["score"] for row in rows]
    errors = [[row["score"] - row["low"] for row in rows], [row["high"] - row["score"] for row in rows]]
    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    axes.barh([name.replace("_", " ") for name in order], scores, xerr=errors, color="#4878a8", ecolor="#222222")
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"mean score on {values['tasks']} held-out tasks, 95% interval")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one task, with the adapters that the demo left in the workspace, or else with barely trained ones",
    )
    parser.add_argument("-C", "--workspace", type=Path, default=Path(".journeyman"))
    parser.add_argument("--attach", metavar="URL", help="a server that runs already, without adapters")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace, config, crew = Workspace(arguments.workspace), FULL, fanoutqa.lookup_crew
        if arguments.quick and (workspace.root / "demo.json").exists():
            config = AFTER_DEMO
        elif arguments.quick:
            workspace, config, crew = Workspace(Path(folder) / "workspace"), SCRATCH, short_crew
        values = measure(workspace, config, arguments.attach, quick=arguments.quick, crew=crew)
    show(values)
    write_result("crew", values, seed=config.seed, quick=arguments.quick)
    if not arguments.quick:
        plot(values, RESULTS / "crew.png")


if __name__ == "__main__":
    main()
