"""The demo: one turn of the loop on a real task set, from an empty workspace to adapters in service."""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self

from pydantic import ValidationError

from journeyman.agents.agent import Crew
from journeyman.agents.model import BASE, ModelTable
from journeyman.runtime.adapters.adapter import Adapter, find_adapter
from journeyman.runtime.adapters.live import current_policies, swap_in, sync
from journeyman.runtime.config import ServerConfig
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.serving.embedded import model_digest
from journeyman.runtime.serving.server import ServerState, attach, start, status, stop
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Config, Record
from journeyman.traces.errors import StoreError, TrainingError
from journeyman.traces.files import regular, write_whole
from journeyman.traces.trace import Purpose, Task
from journeyman.training.data.choosing.choose import ChooseConfig, Choosing
from journeyman.training.data.datasets.card import Provenance
from journeyman.training.data.datasets.shelf import KnownDataset, open_dataset
from journeyman.training.data.demonstrations import TEACHER, Demonstrated
from journeyman.training.data.mine import mine_to_file
from journeyman.training.data.samples import SFTSample, dataset_file_name, read_samples
from journeyman.training.data.sft import SFTMining
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.demo import fanoutqa
from journeyman.training.evaluation.bench import Bench, with_policies
from journeyman.training.evaluation.evaluate import Episode, Summary, summarise
from journeyman.training.evaluation.gate import GateConfig, Verdict, read_verdict
from journeyman.training.improve.compare import compare
from journeyman.training.improve.mirror import mirror, register_adapter
from journeyman.training.improve.promote import promote
from journeyman.training.improve.settle import settle
from journeyman.training.improve.teach import TeachConfig, Teaching
from journeyman.training.improve.teachers import Teachers
from journeyman.training.methods.job import train_adapter
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.rewards import answer_in_text

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend

SCORER = "journeyman.training.rewards:answer_in_text"

AGENTS = ("lookup", "orchestrator")
"""In the order in which they are trained: a plan is worth nothing to a worker that can't look up."""


class DemoConfig(Config):
    train_tasks: int = 200
    """Train tasks that the teacher demonstrates, at most."""
    gate_tasks: int = 20
    """Tasks on which a candidate is compared with the policy in service; with fewer than 20 there is no decision."""
    test_tasks: int = 24
    """Held-out tasks of the table; the gate never sees them."""
    steps: Mapping[str, int] = {"lookup": 50, "orchestrator": 40}
    """SFT steps for each agent."""
    batch: int = 8
    """Samples of a step."""
    concurrency: int = 12
    """Tasks at once."""
    seed: int = 0


GOOD_ENOUGH = 0.5
"""Score of a run of the teacher that agents learn from."""

GATE = GateConfig(max_latency_ratio=20.0)
"""The base model runs without the LoRA path, which on a CPU costs several times its time: beside it the clock tells of
that path and of what else the machine does, not of the candidate."""

FULL = DemoConfig(gate_tasks=31, test_tasks=72, steps={"lookup": 60, "orchestrator": 40})


class Learned(Record):
    """One adapter: what it was made of, and what the gate said."""

    agent: str
    policy: str
    rows: int
    train_s: float
    verdict: Literal["promote", "reject", "inconclusive"]
    reasons: tuple[str, ...]
    swap_ms: float | None
    """Milliseconds of loading and proving the adapter in the live server; None where it was not promoted."""


class DemoResult(Record):
    tasks: int
    rows: tuple[Summary, ...]
    adapters: tuple[Learned, ...]
    server_starts: int = 0
    """0 where a server ran already, or where everything was there from an earlier turn."""


class Progress(Protocol):
    """What the demo tells while it works."""

    def stage(self, title: str, minutes: float) -> None: ...

    def step(self, done: int, total: int, note: str) -> None: ...


class OnDemand:
    """The workspace's server, started when it is first asked for, with every adapter in service loaded.

    A server that was started so is stopped after the `with` block; one that runs already, or that `url` names, stays.
    """

    def __init__(
        self,
        workspace: Workspace,
        config: ServerConfig,
        *,
        url: str | None = None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        self._workspace = workspace
        self._config = config
        self._url = url
        self._on_start = on_start
        self._state: ServerState | None = None
        self.starts = 0

    def __call__(self) -> ServerState:
        if self._state is None:
            state = self._attached_or_started()
            sync(self._workspace, state)
            self._state = state
        return self._state

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.starts:
            stop(self._workspace)

    def _attached_or_started(self) -> ServerState:
        if self._url is not None:
            return attach(self._workspace, self._url, self._config)
        if status(self._workspace).condition != "running":
            self._on_start()
            self.starts = 1
        return start(self._workspace, self._config)


class Demo:
    """One turn of the loop. What is finished is kept, and reused while what it was made from is unchanged."""

    def __init__(
        self,
        workspace: Workspace,
        config: DemoConfig,
        *,
        base_model: Path,
        server: Callable[[], ServerState],
        progress: Progress,
        crew: Callable[..., Crew] = fanoutqa.lookup_crew,
    ) -> None:
        """`server` is asked only when something is left to run on it; `crew` makes that of a split, as
        `fanoutqa.lookup_crew` does."""
        self._workspace = workspace
        self._config = config
        self._server = server
        self._base_model = base_model
        self._progress = progress
        self._crew = crew
        self._store = workspace.store
        self._base_digest = model_digest(base_model)
        self._train = fanoutqa.tasks("train")[: config.train_tasks]
        self._gate = fanoutqa.tasks("gate")[: config.gate_tasks]
        self.test = fanoutqa.tasks("test")[: config.test_tasks]

    def run(self) -> DemoResult:
        candidates = self.candidates()
        rows = self._before()
        adapters = [self._learned(adapter) for adapter in candidates]
        rows += self._after()
        return DemoResult(tasks=len(self.test), rows=tuple(rows), adapters=tuple(adapters))

    def candidates(self) -> list[Adapter]:
        """An adapter for each agent, trained on what the teacher did."""
        taught = self.teach()
        return [self._trained(agent, taught) for agent in AGENTS]

    def teach(self) -> Collection[str]:
        """The traces that agents learn from, once the teacher has worked on the train tasks."""
        self._progress.stage(f"Teacher: human decompositions of {len(self._train)} train tasks become traces", 0.2)
        crew, done = self._crew("train", examples=False), count(1)
        teachers = Teachers(
            crew=crew,
            policies=PolicyTable(agents=dict.fromkeys(AGENTS, TEACHER)),
            tasks=self._train,
            models={TEACHER: Demonstrated(crew, fanoutqa.demonstrations("train"))},
        )
        config = TeachConfig(
            scorer=SCORER, min_score=GOOD_ENOUGH, seed=self._config.seed, concurrency=self._config.concurrency
        )
        conditions = ["train", crew.model_dump_json(exclude={"tools"})]
        teaching = Teaching(self._workspace, teachers, config, source="fanoutqa train", conditions=conditions)
        taught = teaching.teach(on_run=lambda _: self._progress.step(next(done), len(self._train), "tasks"))
        return taught.accepted.values()

    def held_out(self, policies: Mapping[str, str]) -> list[Episode]:
        """The crew's episodes on the held-out tasks with those policies in service."""
        return self._episodes("test", self._crew("test"), self.test, policies)

    def _before(self) -> list[Summary]:
        self._progress.stage(
            f"Before: {len(self.test)} held-out tasks by one agent alone and by the untrained crew", 1.5
        )
        alone = fanoutqa.single_agent_crew("test")
        return [
            summarise("do_nothing", [_nothing(task) for task in self.test]),
            summarise("single_agent", self._episodes("test", alone, self.test, {})),
            summarise("untrained", self.held_out({})),
        ]

    def _after(self) -> list[Summary]:
        self._progress.stage(f"After: {len(self.test)} held-out tasks by the crew in service, and with oracle plans", 4)
        active = self._in_service()
        return [
            summarise("trained", self.held_out(active)),
            summarise("oracle_plan", self.held_out(active | {"orchestrator": TEACHER})),
        ]

    def _learned(self, adapter: Adapter) -> Learned:
        self._progress.stage(f"Gate {adapter.policy}: {len(self._gate)} other tasks, paired with what is in service", 2)
        path = self._workspace.root / "demo" / f"{adapter.policy}-{len(self._gate)}.json"
        learned = self._settled(path, adapter)
        if learned is None:
            learned = self._tried(adapter, find_adapter(self._workspace.adapters, adapter.policy))
            write_whole(path, learned.model_dump_json(indent=2))
        return learned

    def _settled(self, path: Path, adapter: Adapter) -> Learned | None:
        """What became of the candidate when it was tried before, while that is still so."""
        try:
            learned = Learned.model_validate_json(regular(path).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise StoreError(f"{path}: not what the demo learned: delete it, and that part is done again") from None
        serves = self._in_service().get(adapter.agent) == adapter.policy
        return learned if serves == (learned.verdict == "promote") else None

    def _tried(self, adapter: Adapter, folder: Path) -> Learned:
        with self._workspace.lock("swap"):
            swap = swap_in(self._workspace, self._server(), adapter.policy)
        # One that was promoted is not tried again, for what served beside it then may have changed since.
        promoted = self._in_service().get(adapter.agent) == adapter.policy
        verdict = (read_verdict(folder) if promoted else None) or self._compared(adapter)
        register_adapter(folder, self._workspace.mlflow_uri)
        mirror(self._workspace, adapter.agent)
        return Learned(
            agent=adapter.agent,
            policy=adapter.policy,
            rows=adapter.rows,
            train_s=adapter.train_seconds,
            verdict=verdict.decision,
            reasons=verdict.reasons,
            swap_ms=swap.swap_ms + swap.probe_ms if swap and verdict.decision == "promote" else None,
        )

    def _compared(self, adapter: Adapter) -> Verdict:
        bench, done = self._bench("gate", self._crew("gate"), self._gate, purpose="gate"), count(1)
        total = 2 * len(self._gate)
        verdict = compare(
            self._workspace,
            self._server(),
            bench,
            adapter.policy,
            GATE,
            on_episode=lambda policy, _: self._progress.step(next(done), total, policy),
        )
        settle(self._workspace, self._server(), verdict)
        if verdict.decision == "promote":
            promote(self._workspace, adapter.policy, server=self._server())
        return verdict

    def _trained(self, agent: str, taught: Collection[str]) -> Adapter:
        steps = self._config.steps[agent]
        self._progress.stage(f"Train {agent}: {steps} steps of SFT on what the teacher did", steps * 4 / 60)
        dataset = self._mined(agent, Source(self._store, agent, MineConfig(), ids=taught))
        return train_adapter(
            read_samples(dataset.path, SFTSample),
            agent=agent,
            recipe=load_recipe("sft", {"trl.max_steps": steps, "trl.per_device_train_batch_size": self._config.batch}),
            base_model=self._base_model,
            workspace=self._workspace,
            parent=BASE,
            dataset=dataset,
            mlflow_uri=self._workspace.mlflow_uri,
            on_step=lambda step: self._progress.step(step.number, step.steps, f"loss {step.loss:.3f}"),
        )

    def _mined(self, agent: str, source: Source) -> KnownDataset:
        """What may be learned from the source, as `journeyman mine` would write it."""
        made = Provenance.now(self._workspace, {"agent": agent, "kind": "sft", **source.config.model_dump(mode="json")})
        folder, choosing = self._workspace.datasets, Choosing(source, ChooseConfig())
        file = mine_to_file(SFTMining(source), folder, lambda digest: dataset_file_name(agent, digest), choosing, made)
        if file is None:
            raise TrainingError(f"the teacher's runs gave no row for {agent}: take more train tasks")
        return open_dataset(self._workspace, file.path)

    def _in_service(self) -> dict[str, str]:
        return dict(current_policies(self._workspace).agents)

    def _episodes(
        self, split: fanoutqa.Split, crew: Crew, tasks: Sequence[Task], policies: Mapping[str, str]
    ) -> list[Episode]:
        """The crew's episodes on those tasks under those policies; what is on disk already is not run again."""
        table = with_policies(self._workspace, PolicyTable(), {a: p for a, p in policies.items() if p != BASE})
        bench, done = self._bench(split, crew, tasks, purpose="evaluation"), count(1)
        return bench.episodes(table, on_episode=lambda _: self._progress.step(next(done), len(tasks), "tasks"))

    def _bench(self, split: fanoutqa.Split, crew: Crew, tasks: Sequence[Task], *, purpose: Purpose) -> Bench:
        return Bench(
            self._workspace,
            crew,
            tasks,
            SCORER,
            backend=lambda: self._backend(split, crew),
            source=f"fanoutqa {split}",
            purpose=purpose,
            conditions=[split, crew.model_dump_json(exclude={"tools"}), self._base_digest],
            concurrency=self._config.concurrency,
            seed=self._config.seed,
        )

    def _backend(self, split: fanoutqa.Split, crew: Crew) -> "Backend":
        from journeyman.runtime.models.vllm import ChatVLLM  # langchain takes a second to import.
        from journeyman.runtime.serving.backend import Backend

        server, teacher = self._server(), Demonstrated(crew, fanoutqa.demonstrations(split))
        return Backend(models=ModelTable(ChatVLLM(base_url=server.url), {TEACHER: teacher}), router=None, server=server)


def _nothing(task: Task) -> Episode:
    """The episode of a crew that says nothing: what the score gives away for free."""
    return Episode(
        task_id=task.id,
        score=answer_in_text(task, ""),
        status="ok",
        input_tokens=0,
        output_tokens=0,
        model_calls=0,
        seconds=0.0,
        trace_id="",
    )
