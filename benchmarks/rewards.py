"""Claim: rewards alone teach. Where a policy succeeds now and then, it rises without any further demonstration.

A small model is shown how to write function calls (BFCL, `simple`) on a part of the tasks. On another part it only
learns which of its own replies were right, in several rounds, each sampled from the newest weights. The third part is
held out: its mean over 8 samples a task says what was gained, with an interval over tasks. Entropy and the share of
flat groups stand beside it. What is done is kept in the workspace, and the same call goes on.
"""

import argparse
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from _calls import AGENT, FAMILY, FULL, QUICK, Calls, Clock, Measured, Size, flat_share
from _record import write_result
from _server import borrowed

from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.serving.backend import open_backend
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import TrainingError
from journeyman.training.data.datasets.shelf import KnownDataset
from journeyman.training.data.source import MineConfig
from journeyman.training.demo import bfcl
from journeyman.training.demo.demo import OnDemand
from journeyman.training.evaluation.evaluate import mean_interval
from journeyman.training.improve import rounds as online
from journeyman.training.improve.online import train_online
from journeyman.training.improve.rft import RFT, RFTRound
from journeyman.training.methods.recipes.grpo import GRPORecipe
from journeyman.training.methods.recipes.known import METHODS, load_recipe
from journeyman.training.methods.recipes.rft import RFTRecipe


class Taught(NamedTuple):
    policy: str
    flat_share: float
    """Of the groups that it learned from, the mean over rounds."""


def by_rft(calls: Calls, start: str) -> Taught:
    """Imitates its own right replies."""
    size, flat = calls.size, list[float]()
    recipe = load_recipe(
        "rft",
        {
            "rft.rounds": size.rounds,
            "rft.best_of": size.best_of,
            "rft.keep": 4,
            "rft.seed": calls.seed * 1000,
            "rft.merged": size.merged,
            "trl.learning_rate": 3e-4,
            **({"trl.num_train_epochs": 2} if size.merged is None else {"trl.max_steps": 3}),
        },
    )
    assert isinstance(recipe, RFTRecipe)
    half = 0.5 / size.rounds  # Of the whole: a round's runs, and then its steps.
    with calls.clock.stage(f"RFT, {size.rounds} rounds", _units(size)) as tell:

        def train(dataset: KnownDataset, *, start: str) -> Adapter:
            done = (2 * len(flat) + 1) * half
            return calls.fit(dataset, recipe, start=start, tell=lambda share: tell(done + share * half))

        def ended(made: RFTRound) -> None:
            flat.append(made.flat_share)
            print(f"    {made.told}", flush=True)

        made = RFT(
            calls.workspace,
            calls.crew,
            AGENT,
            calls.rewarded,
            recipe,
            scorer=bfcl.SCORER,
            start=start,
            serve=calls.served(),
            train=train,
            source=FAMILY,
            on_run=lambda done, runs: tell((2 * len(flat) + done / runs) * half),
            on_round=ended,
        ).run()
    return Taught(made.policy, fmean(flat))


def by_dpo(calls: Calls, start: str) -> Taught:
    """Prefers its own right replies to its own wrong ones."""
    size, policy, flat = calls.size, start, list[float]()
    overrides: dict[str, object] = {"trl.learning_rate": 5e-5, "trl.beta": 0.1, "trl.num_train_epochs": 1}
    if size.merged is not None:
        overrides["trl.max_steps"] = 3
    for number in range(size.rounds):
        first = calls.seed * 1000 + number * size.best_of
        seeds = range(first, first + size.best_of)
        episodes = calls.sampled(policy, calls.rewarded, seeds, "rollout", f"DPO, round {number + 1}")
        flat.append(flat_share(episodes))
        pairs = calls.mined("preference", MineConfig(policy=(policy,)), [one.trace_id for one in episodes])
        with calls.clock.stage(f"DPO, round {number + 1}: {pairs.card.rows} pairs", 4) as tell:
            policy = calls.train(pairs, "dpo", overrides, start=policy, tell=tell).policy
    return Taught(policy, fmean(flat))


def by_grpo(calls: Calls, start: str) -> Taught:
    """Shifts its replies towards those that are worth more than others to the same task."""
    size, rounds = calls.size, list[online.Round]()
    overrides: dict[str, object] = {"trl.max_steps": size.grpo_steps, "rollouts.seed": calls.seed}
    if size.merged is None:
        overrides |= {"rollouts.concurrency": 32, "trl.learning_rate": 3e-4}
    else:
        overrides["rollouts.group"] = 2
    recipe = load_recipe("grpo", overrides)
    assert isinstance(recipe, GRPORecipe)
    with (
        OnDemand(calls.workspace, calls.workspace.config.server) as server,
        calls.clock.stage(f"GRPO, {size.grpo_steps} steps", size.grpo_steps * 1.5) as tell,
    ):
        server()

        def ended(one: online.Round) -> None:
            rounds.append(one)
            tell(one.number / size.grpo_steps)

        adapter = train_online(
            calls.rewarded,
            calls.crew,
            agent=AGENT,
            recipe=recipe,
            base_model=calls.base_model,
            workspace=calls.workspace,
            backend=open_backend(calls.workspace),
            scorer=bfcl.SCORER,
            source=FAMILY,
            parent=start,
            start=start,
            on_round=ended,
        )
    return Taught(adapter.policy, fmean(one.flat / max(1, one.groups) for one in rounds) if rounds else 0.0)


WAYS: Mapping[str, Callable[[Calls, str], Taught]] = {"rft": by_rft, "dpo": by_dpo, "grpo": by_grpo}


def _units(size: Size) -> float:
    """Of several rounds of sampling and training."""
    return size.rounds * (4 + size.rewarded * size.best_of / 400)


def row(method: str, seed: int, before: Measured, after: Measured, flat: float) -> dict[str, Any]:
    deltas = [score - before.by_task[task_id] for task_id, score in after.by_task.items()]
    low, high = mean_interval(deltas, confidence=0.95)
    return {
        "family": FAMILY,
        "method": method,
        "seed": seed,
        "before": round(before.mean, 4),
        "after": round(after.mean, 4),
        "gain": round(fmean(deltas), 4),
        "gain_low": round(low, 4),
        "gain_high": round(high, 4),
        "pass8_before": round(before.any_right, 4),
        "pass8_after": round(after.any_right, 4),
        "flat_share": round(flat, 4),
        "entropy_before": round(before.entropy, 4),
        "entropy": round(after.entropy, 4),
    }


def measure(
    workspace: Workspace, size: Size, methods: Sequence[str], seeds: int, ready: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """`ready` returns when the workspace's server answers, where there is to be one."""
    held_out = 1 + size.held_out * size.samples / 400
    units = {"rft": _units(size), "dpo": _units(size), "grpo": 1.5 * size.grpo_steps}
    clock = Clock(3 + held_out + seeds * sum(units[method] + held_out for method in methods))
    rows: list[dict[str, Any]] = []
    with workspace.create().lock("rewards"):
        start = Calls(workspace, size, clock, seed=0).first_policy()
        ready()
        for seed in range(seeds):
            calls = Calls(workspace, size, clock, seed=seed)
            before = calls.measured(start)
            print(f"    {start}: {before.mean:.3f} in the mean, any right {before.any_right:.3f}", flush=True)
            for method in methods:
                try:
                    taught = WAYS[method](calls, start)
                except TrainingError as error:
                    print(f"    {method} taught nothing: {error}", flush=True)
                    continue
                rows.append(row(method, seed, before, calls.measured(taught.policy), taught.flat_share))
    return {
        "families": rows,
        "tasks": {"shown": len(calls.shown), "rewarded": len(calls.rewarded), "held_out": len(calls.held_out)},
        "size": size._asdict(),
    }


def show(values: Mapping[str, Any]) -> None:
    print(f"\n{'method':8} {'before':>7} {'after':>7} {'gain at 95%':>26} {'any of 8':>9} {'flat':>6} {'entropy':>8}")
    for one in values["families"]:
        gain = f"{one['gain']:+.3f} ({one['gain_low']:+.3f} .. {one['gain_high']:+.3f})"
        print(
            f"{one['method']:8} {one['before']:7.3f} {one['after']:7.3f} {gain:>26} {one['pass8_before']:9.3f} "
            f"{one['flat_share']:6.2f} {one['entropy']:8.3f}"
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few tasks that were shown before, and one round")
    known = [method for method in WAYS if method in METHODS]
    parser.add_argument("--method", action="append", choices=known, help="repeatable (default: all of them)")
    parser.add_argument("--seeds", type=int, default=1, help="how often each method is run, with other draws")
    parser.add_argument("-C", "--workspace", type=Path, default=Path(".journeyman/rewards/.journeyman"))
    parser.add_argument("--attach", metavar="URL", help="for --quick: a server that runs already, without adapters")
    arguments = parser.parse_args()
    methods = arguments.method or known
    if not arguments.quick:
        values = measure(Workspace(arguments.workspace), FULL, methods, arguments.seeds)
    else:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
            workspace = Workspace(Path(folder) / "workspace").create()
            workspace.config_file.write_text(f"[server]\nport = {free_port()}\n")
            with borrowed(workspace, arguments.attach) as server:
                started = pool.submit(server)  # It comes up while the first policy is trained.
                values = measure(workspace, QUICK, methods, 1, started.result)
    show(values)
    write_result("rewards", values, seed=0, quick=arguments.quick)


if __name__ == "__main__":
    main()
