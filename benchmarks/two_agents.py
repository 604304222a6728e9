"""Claim: from one set of traces each of two agents gets an adapter of its own, and both together beat either alone.

Runs the demo's teacher, trains an adapter for the orchestrator and one for the look-up worker, and beside them one
shared adapter on the rows of both, for as many steps as the two together. The held-out tasks are run with each of them.
Go on with a run that was stopped by the same command: traces, adapters and episodes in the workspace are reused.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _crews import Plain
from _record import write_result
from _server import borrowed
from crew import gain, short_crew

from journeyman.agents.agent import Crew
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.live import AdapterServer, swap_in
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.training.data.datasets.shelf import open_dataset
from journeyman.training.data.samples import SFTSample, read_samples
from journeyman.training.demo import fanoutqa
from journeyman.training.demo.demo import FULL, Demo, DemoConfig
from journeyman.training.evaluation.evaluate import summarise
from journeyman.training.methods.job import load_recipe, train_adapter

SHARED = "shared"
"""The agent that the shared adapter is registered for; nobody in the crew has that name."""

QUICK = DemoConfig(train_tasks=4, test_tasks=1, steps={"lookup": 2, "orchestrator": 2}, batch=1)


def shared_adapter(workspace: Workspace, own: Sequence[Adapter], config: DemoConfig, base_model: Path) -> Adapter:
    """One adapter on everything that the two learned from, in as many steps as they had together."""
    rows = [row for adapter in own for row in read_samples(_dataset(workspace, adapter), SFTSample)]
    # The crew shows each agent a prompt of its own: which one a row is in is no longer one answer.
    samples = [row.model_copy(update={"agent": SHARED, "prompt_form": None}) for row in rows]
    steps = sum(config.steps.values())
    print(f"-- train {SHARED}: {steps} steps on {len(samples)} rows", flush=True)
    recipe = load_recipe("sft", {"trl.max_steps": steps, "trl.per_device_train_batch_size": config.batch})
    return train_adapter(samples, agent=SHARED, recipe=recipe, base_model=base_model, workspace=workspace)


def _dataset(workspace: Workspace, adapter: Adapter) -> Path:
    return open_dataset(workspace, adapter.dataset_digest).path


def measure(workspace: Workspace, config: DemoConfig, url: str | None, crew: Callable[..., Crew]) -> dict[str, Any]:
    base_model = Path(pull_model(workspace.config.server.model))
    with workspace.create().lock("demo"), borrowed(workspace, url) as server, ThreadPoolExecutor() as pool:
        started = pool.submit(server)  # It comes up while adapters are trained.
        demo = Demo(workspace, config, base_model=base_model, server=started.result, progress=Plain(), crew=crew)
        own = {adapter.agent: adapter for adapter in demo.candidates()}
        shared = shared_adapter(workspace, list(own.values()), config, base_model)
        policies = {agent: adapter.policy for agent, adapter in own.items()}
        crews: dict[str, Mapping[str, str]] = {
            "untrained": {},
            "orchestrator": {"orchestrator": policies["orchestrator"]},
            "worker": {"lookup": policies["lookup"]},
            "both": policies,
            "shared": dict.fromkeys(policies, shared.policy),
        }
        state = started.result()
        with AdapterServer(state.url) as live, workspace.lock("swap"):
            for policy in sorted({*policies.values(), shared.policy} - live.served().keys()):
                swap_in(workspace, state, policy)
        episodes = {}
        for name, given in crews.items():
            print(f"-- {len(demo.test)} held-out tasks: {name}", flush=True)
            episodes[name] = demo.held_out(given)
    rows = [summarise(name, episodes[name]).model_dump() for name in crews]
    return {
        "tasks": len(demo.test),
        "steps": {**config.steps, SHARED: sum(config.steps.values())},
        "train_seconds": {adapter.agent: adapter.train_seconds for adapter in (*own.values(), shared)},
        "rows": rows,
        "gains": {
            f"{name} over {base}": gain(episodes[name], episodes[base])
            for name, base in (
                ("orchestrator", "untrained"),
                ("worker", "untrained"),
                ("both", "orchestrator"),
                ("both", "worker"),
                ("both", "shared"),
            )
        },
    }


def show(values: Mapping[str, Any]) -> None:
    print(f"\n{'adapters':14} {'score':>6}  {'95% interval':>14}  tokens a task")
    for row in values["rows"]:
        interval = f"{row['low']:6.3f} - {row['high']:5.3f}"
        print(f"{row['name']:14} {row['score']:6.3f}  {interval}  {row['tokens_per_task']:8.0f}")
    for name, one in values["gains"].items():
        print(f"{name}: {one['mean']:+.3f} ({one['low']:+.3f} .. {one['high']:+.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one task, with barely trained adapters")
    parser.add_argument("-C", "--workspace", type=Path, default=Path(".journeyman"))
    parser.add_argument("--attach", metavar="URL", help="a server that runs already, with room for three adapters")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace, config, crew = Workspace(arguments.workspace), FULL, fanoutqa.lookup_crew
        if arguments.quick:
            workspace, config, crew = Workspace(Path(folder) / "workspace"), QUICK, short_crew
        values = measure(workspace, config, arguments.attach, crew)
    show(values)
    write_result("two_agents", values, seed=config.seed, quick=arguments.quick)


if __name__ == "__main__":
    main()
