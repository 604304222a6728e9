"""What the demo's record gives to learn from, and whom credit by the rule blames there, held to an oracle.

The untrained crew works on train tasks as if in service, beside the human teacher. Then each of its agents is replaced:
the orchestrator by the human plans, the worker by one that looks its goal up and answers with the best fact. The one
whose replacement helps a run more held it back; the rule and one reward for all say who they think it was.
"""

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from _crews import Plain, terse
from _record import write_result
from _server import borrowed

from journeyman.agents.agent import Crew
from journeyman.agents.model import Model, ModelRequest, ModelTable
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.serving.backend import Backend
from journeyman.runtime.serving.embedded import model_digest, pull_model
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.reports.success import wilson
from journeyman.traces.trace import Purpose, Task
from journeyman.training.data.credit import credit_turns
from journeyman.training.data.demonstrations import TEACHER, Demonstrated
from journeyman.training.data.mine import KINDS
from journeyman.training.data.samples import Kind
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.demo import fanoutqa
from journeyman.training.demo.demo import GOOD_ENOUGH, SCORER, Demo, DemoConfig
from journeyman.training.evaluation.bench import Bench
from journeyman.training.evaluation.evaluate import Episode

TASKS = 40
FEW_TASKS, FEW_TOKENS = 3, 16
"""Of a quick run, and of each of its replies."""
FIRST_FACT = "first_fact"
"""The policy of the worker's replacement."""
AGENTS = ("orchestrator", "lookup")
KINDS_OF_RECORD: tuple[Kind, ...] = ("sft", "preference", "kto", "prompts")


def first_fact(request: ModelRequest) -> str:
    """Looks the goal up, and answers with the values of the best fact."""
    last = request.messages[-1].content
    shown = f"{fanoutqa.LOOKUP}: "
    if not last.startswith(shown):
        return write_call(fanoutqa.LOOKUP, {"query": last})
    _, _, values = last.removeprefix(shown).splitlines()[0].partition(' ["')
    return write_answer(json.loads(f'["{values}') if values else [])


def episodes(
    workspace: Workspace,
    server: Callable[[], ServerState],
    crew: Crew,
    tasks: Sequence[Task],
    policies: Mapping[str, str],
    purpose: Purpose,
) -> dict[str, Episode]:
    """By task."""
    teachers: dict[str, Model] = {
        TEACHER: Demonstrated(crew, fanoutqa.demonstrations("train")),
        FIRST_FACT: ScriptedModel(first_fact),
    }
    bench = Bench(
        workspace,
        crew,
        tasks,
        SCORER,
        backend=lambda: Backend(
            models=ModelTable(ChatVLLM(base_url=server().url), teachers), router=None, server=server()
        ),
        conditions=["train", crew.model_dump_json(exclude={"tools"}), model_digest(pull_model())],
        source="fanoutqa train",
        purpose=purpose,
        concurrency=12,
    )
    return {episode.task_id: episode for episode in bench.episodes(PolicyTable(agents=policies))}


def credited(workspace: Workspace, runs: Sequence[Episode]) -> dict[str, dict[str, float]]:
    """Mean reward of each agent's calls by the rule, by task; an agent that was never asked has none."""
    rewards: dict[str, dict[str, float]] = {}
    for episode in runs:
        of_agent: dict[str, list[float]] = defaultdict(list)
        for credit in credit_turns(workspace.store.get(episode.trace_id)).values():
            of_agent[credit.agent].append(credit.reward)
        rewards[episode.task_id] = {agent: fmean(values) for agent, values in of_agent.items()}
    return rewards


def compared(
    workspace: Workspace, untrained: Mapping[str, Episode], replaced: Mapping[str, Mapping[str, Episode]]
) -> dict[str, Any]:
    """Whom the rule names beside whom the oracle names, over the runs in which one replacement helps more."""
    rewards = credited(workspace, list(untrained.values()))
    right, oracle = 0, Counter[str]()
    for task_id, episode in untrained.items():
        gains = {agent: replaced[agent][task_id].score - episode.score for agent in AGENTS}
        guilty = max(AGENTS, key=lambda agent: gains[agent])
        if gains[guilty] <= 0 or len(set(gains.values())) == 1:
            continue
        oracle[guilty] += 1
        known = rewards[task_id]
        named = min(AGENTS, key=lambda agent: known.get(agent, 1.0))
        right += named == guilty
    runs = oracle.total()
    low, high = wilson(right, runs) if runs else (0.0, 1.0)
    by_agent = {
        agent: {
            "gain": round(fmean(replaced[agent][task].score - one.score for task, one in untrained.items()), 4),
            "reward": round(fmean(one.get(agent, 1.0) for one in rewards.values()), 4),
            "named_by_oracle": oracle[agent],
        }
        for agent in AGENTS
    }
    return {
        "runs": runs,
        "named_right": {"documented rule": round(right / runs, 4) if runs else None, "one reward for all": 0.5},
        "low": round(low, 4),
        "high": round(high, 4),
        "agents": by_agent,
    }


def mined(workspace: Workspace) -> list[dict[str, Any]]:
    """Rows of each kind and origin."""
    rows = []
    for agent in AGENTS:
        for kind in KINDS_OF_RECORD:
            config = MineConfig(min_score=GOOD_ENOUGH)
            mining = KINDS[kind](Source(workspace.store, agent, config))
            origins = Counter(json.loads(line)["origin"] for line in mining.finished(iter(list(mining))))
            told = {"agent": agent, "kind": kind, "refused": mining.refused}
            rows += [told | {"origin": origin, "rows": count} for origin, count in (origins or {"-": 0}).items()]
    return rows


def measure(workspace: Workspace, url: str | None, *, quick: bool) -> dict[str, Any]:
    tasks = fanoutqa.tasks("train")[: FEW_TASKS if quick else TASKS]
    crew = fanoutqa.lookup_crew("train")
    crew = terse(crew, FEW_TOKENS) if quick else crew
    with workspace.create().lock("demo"), borrowed(workspace, url) as server:
        config = DemoConfig(train_tasks=len(tasks))
        Demo(workspace, config, base_model=pull_model(), server=server, progress=Plain()).teach()
        print(f"-- {len(tasks)} train tasks by the untrained crew, and with each agent replaced", flush=True)
        untrained = episodes(workspace, server, crew, tasks, {}, "service")
        replaced = {
            "orchestrator": episodes(workspace, server, crew, tasks, {"orchestrator": TEACHER}, "evaluation"),
            "lookup": episodes(workspace, server, crew, tasks, {"lookup": FIRST_FACT}, "evaluation"),
        }
    oracle = compared(workspace, untrained, replaced)
    rows = mined(workspace)
    for row in rows:
        print("{agent:14} {kind:12} {origin:10} {rows:6} rows".format(**row))
    print(f"the rule names the oracle's agent in {oracle['named_right']['documented rule']} of {oracle['runs']} runs")
    for agent, row in oracle["agents"].items():
        print(f"{agent:14} replaced: {row['gain']:+.3f} of score; mean reward by the rule {row['reward']:.3f}")
    score = fmean(episode.score for episode in untrained.values())
    return {"tasks": len(tasks), "untrained": round(score, 4), "rows": rows, "oracle": oracle}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three tasks, short replies")
    parser.add_argument("--workspace", type=Path, help="go on in this one (default: a new one, deleted afterwards)")
    parser.add_argument("--attach", metavar="URL", help="a vLLM server that runs already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(arguments.workspace or Path(folder) / ".journeyman")
        values = measure(workspace, arguments.attach, quick=arguments.quick)
    write_result("demo_record", values, seed=0, quick=arguments.quick)


if __name__ == "__main__":
    main()
