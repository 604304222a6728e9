"""Claim: a promotion reaches the running server in milliseconds, under load, with no restart and no failed request.

Eight clients run look-ups without a pause while one adapter after another is promoted. Timed from the call of `promote`
to the first token that the new policy streams; the parts are the load, the probe, and the rest up to the token.
"""

import argparse
import asyncio
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from _crews import terse
from _record import write_result
from _server import borrowed

from journeyman.agents.agent import Crew
from journeyman.agents.model import ModelTable
from journeyman.runtime.adapters.adapter import Adapter, find_adapter, load_adapter
from journeyman.runtime.adapters.live import current_policies, promote
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.trace import Outcome, Task
from journeyman.training.data.demonstrations import TEACHER, Demonstrated
from journeyman.training.data.mine import mine_sft
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.demo import fanoutqa
from journeyman.training.methods.job import train_adapter
from journeyman.training.methods.recipe import Recipe
from journeyman.training.methods.recipes.known import load_recipe

AGENT = "lookup"


def first_adapter(workspace: Workspace, trained_before: Workspace, recipe: Recipe) -> Adapter:
    """The look-up worker's adapter in service there, or else one trained here."""
    policy = current_policies(trained_before).agents.get(AGENT)
    if policy is None:
        return trained(workspace, Path(pull_model()), recipe)
    shutil.copytree(find_adapter(trained_before.adapters, policy), workspace.adapters / policy)
    return load_adapter(workspace.adapters / policy)


def trained(workspace: Workspace, base_model: Path, recipe: Recipe) -> Adapter:
    """An adapter from what the teacher does on a dozen train tasks."""
    crew = fanoutqa.lookup_crew("train")
    teacher = ModelTable(Demonstrated(crew, fanoutqa.demonstrations("train")))
    everywhere = dict.fromkeys(("orchestrator", AGENT), TEACHER)
    with Recording(workspace) as recording:
        runtime = Runtime(crew, model=teacher, tracer=recording.tracer, policies=everywhere)
        for task in fanoutqa.tasks("train")[:12]:
            runtime.run_sync(task)
    mined = mine_sft(Source(workspace.store, AGENT, MineConfig()))
    return train_adapter(mined.samples, agent=AGENT, recipe=recipe, base_model=base_model, workspace=workspace)


def copied(workspace: Workspace, adapter: Adapter, number: int) -> str:
    """The same weights as a version of their own: what a swap costs does not depend on what was learned."""
    copy = adapter.model_copy(update={"number": number})
    folder = workspace.adapters / copy.policy
    shutil.copytree(find_adapter(workspace.adapters, adapter.policy), folder)
    (folder / "adapter.json").write_text(copy.model_dump_json(indent=2))
    return load_adapter(folder).policy


async def measure(
    workspace: Workspace, state: ServerState, policies: list[str], *, busy: int, tokens: int, pause_s: float
) -> dict[str, Any]:
    """`pause_s`: seconds of load before the first promotion, and after each; `busy` clients make it, whose replies
    have `tokens` at most."""
    promote(workspace, policies[0], reason="the first", server=state)
    chat = ChatVLLM(base_url=state.url, retries=0)
    planned = terse(fanoutqa.lookup_crew("test"), tokens)
    crew = Crew(name="look-ups", orchestrator=None, workers=planned.workers, tools=planned.tools)
    runtime = Runtime(crew, model=chat, policies=lambda: current_policies(workspace))
    goals = list(fanoutqa.findings("test"))
    outcomes: list[Outcome] = []
    stopped = asyncio.Event()

    async def client(number: int) -> None:
        while not stopped.is_set():
            goal = goals[len(outcomes) % len(goals)]
            outcomes.append(await runtime.run(Task(id=f"{number}-{len(outcomes)}", prompt=goal)))

    clients = [asyncio.create_task(client(number)) for number in range(busy)]
    await asyncio.sleep(pause_s)
    swaps = []
    for policy in policies[1:]:
        swaps.append(await swap(workspace, state, chat, policy))
        await asyncio.sleep(pause_s)
    stopped.set()
    await asyncio.gather(*clients)
    await chat.aclose()
    failed = [outcome for outcome in outcomes if outcome.status in ("failed", "timeout")]
    seconds = [outcome.seconds for outcome in outcomes]
    return {
        "swaps": swaps,
        "clients": busy,
        "look_ups": len(outcomes),
        "model_calls": sum(outcome.model_calls for outcome in outcomes),
        "failed": len(failed),
        "look_up_p50_s": float(np.percentile(seconds, 50)),
        "look_up_max_s": max(seconds),
    }


async def swap(workspace: Workspace, state: ServerState, chat: ChatVLLM, policy: str) -> dict[str, float]:
    """Milliseconds of one promotion, up to the first token that the new policy streams."""
    started = perf_counter()
    promotion = await asyncio.to_thread(promote, workspace, policy, reason="measured", server=state)
    journalled = perf_counter()
    async for piece in chat.astream("Name a planet.", model=policy, max_tokens=4):
        if piece.content:
            break
    first_token = perf_counter()
    assert promotion.swap is not None
    return {
        "load_ms": promotion.swap.swap_ms,
        "probe_ms": promotion.swap.probe_ms,
        "promoted_ms": (journalled - started) * 1e3,
        "first_token_ms": (first_token - started) * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two promotions instead of twelve")
    parser.add_argument(
        "-C", "--workspace", type=Path, default=Path(".journeyman"), help="whose adapter is used, if it has one"
    )
    parser.add_argument("--attach", metavar="URL", help="a server that runs already, with room for four adapters")
    arguments = parser.parse_args()
    swaps, busy, tokens, pause_s = (2, 3, 16, 0.5) if arguments.quick else (12, 8, 96, 4.0)
    less = {"trl.max_steps": 3, "trl.per_device_train_batch_size": 1} if arguments.quick else {"trl.max_steps": 8}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "workspace").create()
        with borrowed(workspace, arguments.attach) as server, ThreadPoolExecutor() as pool:
            started = pool.submit(server)
            recipe = load_recipe("sft", less)
            adapter = first_adapter(workspace, Workspace(arguments.workspace), recipe)
            numbers = range(adapter.number + 1, adapter.number + swaps + 2)
            policies = [copied(workspace, adapter, number) for number in numbers]
            values = asyncio.run(
                measure(workspace, started.result(), policies, busy=busy, tokens=tokens, pause_s=pause_s)
            )
    print(f"{'':16} {'median':>8} {'worst':>8}  (ms, {swaps} promotions, {busy} clients)")
    for key in ("load_ms", "probe_ms", "promoted_ms", "first_token_ms"):
        taken = [one[key] for one in values["swaps"]]
        values[key] = {"median": float(np.median(taken)), "max": max(taken)}
        print(f"{key.removesuffix('_ms'):16} {values[key]['median']:8.0f} {values[key]['max']:8.0f}")
    print(f"{values['model_calls']} model calls in {values['look_ups']} look-ups meanwhile, {values['failed']} failed")
    write_result("swap", values, seed=0, quick=arguments.quick)


if __name__ == "__main__":
    main()
