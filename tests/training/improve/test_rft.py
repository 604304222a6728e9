"""Rounds of rejection sampling: what samples, what is kept, where the rounds end, and how they go on."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest, ModelTable
from journeyman.agents.worker import write_answer
from journeyman.runtime.adapters.adapter import Adapter, load_adapter, next_number
from journeyman.runtime.adapters.lineage import AdapterLineage, trace_lineage
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.serving.backend import Backend
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, ModelError, ServerError, TrainingError
from journeyman.traces.trace import Task
from journeyman.training.data.datasets.shelf import KnownDataset
from journeyman.training.data.samples import SFTSample, read_samples
from journeyman.training.improve.rft import RFT, Measured, RFTRound
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.methods.recipes.rft import RFTRecipe

SCORER = "journeyman.training.rewards:answer_in_text"
MakeAdapter = Callable[..., Path]
Says = Callable[[str, int, int], str]
"""What a policy says to a number, at the n-th time that it is asked that."""
CREW = Crew(
    name="echo", orchestrator=None, workers=(Agent(name="worker", instructions="Say it.", limits=Limits(turns=1)),)
)
TASKS = [Task(id=f"q{number}", prompt=str(number), reference=f"word{number}") for number in range(6)]


class Sampler:
    """A server that gives token ids: a scripted model whose replies carry them."""

    provider = "vllm"
    demonstrates = False

    def __init__(self, says: Says) -> None:
        self.asked: Counter[tuple[str, int]] = Counter()
        """By policy and number."""
        self.temperatures: set[float] = set()
        self.down_after: int | None = None
        self._says = says
        self._scripted = ScriptedModel(self._reply)

    async def complete(self, request: ModelRequest) -> ModelReply:
        if self.down_after is not None and self.asked.total() >= self.down_after:
            raise ModelError("the server is down", kind="unreachable")
        reply = await self._scripted.complete(request)
        ids = tuple(reply.content.encode())
        update = {"prompt_token_ids": (1, 2, 3), "token_ids": ids, "logprobs": (-0.5,) * len(ids)}
        return reply.model_copy(update=update)

    async def aclose(self) -> None:
        pass

    def _reply(self, request: ModelRequest) -> str:
        number = int(request.messages[-1].content)
        self.temperatures.add(request.temperature)
        self.asked[request.policy, number] += 1
        return write_answer(self._says(request.policy, number, self.asked[request.policy, number]))


class Jobs:
    """Makes jobs in one workspace, with a stand-in for the trainer, whose adapters say what they were trained on."""

    def __init__(self, workspace: Workspace, make_adapter: MakeAdapter) -> None:
        self.workspace = workspace
        self.trained: dict[str, tuple[str, list[SFTSample]]] = {}
        """By policy, what it started from and its rows."""
        self.rounds: list[RFTRound] = []
        self.measured: list[Measured] = []
        self.served: list[tuple[str, float]] = []
        self._make_adapter = make_adapter

    def __call__(
        self, sampler: Sampler, *, held_out: Sequence[Task] = (), crew: Crew = CREW, scorer: str = SCORER, **table: Any
    ) -> RFT:
        @contextmanager
        def serve(policy: str, *, tokens: float) -> Iterator[Backend]:
            self.served.append((policy, tokens))
            yield Backend(models=ModelTable(sampler), router=None, server=None)

        recipe = load_recipe("rft", {f"rft.{key}": value for key, value in table.items()})
        assert isinstance(recipe, RFTRecipe)
        return RFT(
            self.workspace,
            crew,
            "worker",
            TASKS,
            recipe,
            scorer=scorer,
            start="base",
            serve=serve,
            train=self.train,
            held_out=held_out,
            on_round=self.rounds.append,
            on_measured=self.measured.append,
        )

    def train(self, dataset: KnownDataset, *, start: str) -> Adapter:
        for policy, known in self.trained.items():
            if known == (start, read_samples(dataset.path, SFTSample)):
                return load_adapter(self.workspace.adapters / policy)
        policy = f"worker@{next_number(self.workspace.adapters, 'worker')}"
        folder = self._make_adapter(policy)
        self.trained[policy] = (start, read_samples(dataset.path, SFTSample))
        record = folder / "adapter.json"
        adapter = load_adapter(folder).model_copy(update={"start": start, "dataset_digest": dataset.digest})
        record.write_text(adapter.model_dump_json())
        return adapter


@pytest.fixture
def jobs(workspace: Workspace, make_adapter: MakeAdapter) -> Jobs:
    return Jobs(workspace, make_adapter)


def learning(policy: str, number: int, time: int) -> str:
    """The base model knows 0 and 1 always, 2 and 3 every second time, the rest never; each adapter one more."""
    skill = int(policy.partition("@")[2] or 0)
    knows = number < 2 + skill or (number < 4 + skill and time % 2 == 0)
    return f"word{number}" if knows else f"no idea {time}"


def test_each_round_samples_with_the_weights_of_the_round_before_and_learns_from_what_is_right(jobs: Jobs) -> None:
    sampler = Sampler(learning)
    made = jobs(sampler, rounds=2, best_of=4, keep=2).run()
    assert made.policy == "worker@2"
    assert [(one.sampled, one.policy) for one in made.rounds] == [("base", "worker@1"), ("worker@1", "worker@2")]
    first = made.rounds[0]
    assert (first.tasks, first.runs, first.accepted, first.solved) == (6, 24, 12, 4)
    assert first.score == pytest.approx(12 / 24)
    assert first.flat_share == pytest.approx(4 / 6)
    assert sampler.temperatures == {1.0}
    start, rows = jobs.trained["worker@2"]
    assert start == "worker@1"
    assert {row.policy for row in rows} == {"worker@1"}
    assert {row.origin for row in rows} == {"rollout"}
    assert {row.completion for row in rows} == {write_answer(f"word{number}") for number in range(5)}


def test_lineage_names_the_rounds_and_the_runs_that_each_learned_from(jobs: Jobs, workspace: Workspace) -> None:
    jobs(Sampler(learning), rounds=2, best_of=2).run()
    lineage = trace_lineage(workspace, "worker@2")
    assert isinstance(lineage, AdapterLineage)
    assert lineage.starts == ("worker@1", "base")
    rows = jobs.trained["worker@2"][1]
    assert {source.trace_id for source in lineage.sources} >= {row.trace_id for row in rows}


def test_of_a_task_so_many_runs_are_kept_as_have_other_replies(jobs: Jobs) -> None:
    def verbose(policy: str, number: int, time: int) -> str:
        return f"word{number}" + "!" * (time % 3)

    jobs(Sampler(verbose), rounds=1, best_of=6, keep=2).run()
    rows = jobs.trained["worker@1"][1]
    assert Counter(row.messages[-1].content for row in rows) == {str(number): 2 for number in range(6)}
    assert len({(row.messages[-1].content, row.completion) for row in rows}) == 12


def test_a_round_takes_the_tasks_that_tell_most(jobs: Jobs) -> None:
    sampler = Sampler(learning)
    jobs(sampler, rounds=3, best_of=4, tasks=3).run()
    rounds = [{number for (policy, number) in sampler.asked if policy == name} for name in ("base", "worker@1")]
    assert rounds[0] | rounds[1] == set(range(6)), "what was never tried comes before what is known"
    unsure = {number for policy, number in sampler.asked if policy == "worker@2"}
    assert unsure & {2, 3}, "what succeeds now and then comes before what always or never does"
    assert not unsure >= {0, 1}


def test_a_job_that_is_called_again_makes_no_run_and_no_adapter_again(jobs: Jobs) -> None:
    sampler = Sampler(learning)
    before = jobs(sampler, rounds=2).run()
    asked = sampler.asked.total()
    assert jobs(sampler, rounds=2).run() == before
    assert sampler.asked.total() == asked
    assert list(jobs.trained) == ["worker@1", "worker@2"]
    longer = jobs(sampler, rounds=3).run()
    assert longer.rounds[:2] == before.rounds
    assert longer.policy == "worker@3"


def test_a_job_whose_server_dies_goes_on_with_the_runs_that_are_left(jobs: Jobs) -> None:
    sampler = Sampler(learning)
    sampler.down_after = 10
    with pytest.raises(ServerError, match="the server is down"):
        jobs(sampler, rounds=1, best_of=4, concurrency=4).run()
    sampler.down_after = None
    asked = sampler.asked.total()
    jobs(sampler, rounds=1, best_of=4, concurrency=4).run()
    assert 0 < asked < 24
    assert sampler.asked.total() == 24


def test_where_no_run_is_accepted_nothing_is_trained_and_it_is_said_why(jobs: Jobs) -> None:
    told = r"base gives worker nothing to learn from: none of 12 runs scored 1 or more, the mean is 0\.000; train on "
    with pytest.raises(TrainingError, match=told):
        jobs(Sampler(lambda policy, number, time: "no idea"), best_of=2).run()
    assert jobs.trained == {}


def test_a_later_round_without_an_accepted_run_ends_the_job_with_what_there_is(jobs: Jobs) -> None:
    def forgets(policy: str, number: int, time: int) -> str:
        return f"word{number}" if policy == "base" else "no idea"

    made = jobs(Sampler(forgets), rounds=3, best_of=2).run()
    assert made.policy == "worker@1"
    assert [one.policy for one in made.rounds] == ["worker@1", None]


def test_of_the_rounds_adapters_the_best_on_held_out_tasks_is_the_result(jobs: Jobs, workspace: Workspace) -> None:
    def peaks(policy: str, number: int, time: int) -> str:
        if number < 100:
            return f"word{number}" if time % 2 == 0 else f"no idea {time}"
        knows = {"base": 1, "worker@1": 3, "worker@2": 2}[policy]
        return f"word{number}" if number - 100 < knows else "no idea"

    held_out = [Task(id=f"h{number}", prompt=str(number), reference=f"word{number}") for number in range(100, 104)]
    sampler = Sampler(peaks)
    made = jobs(sampler, rounds=2, best_of=2, held_out=held_out).run()
    assert [(one.policy, one.mean) for one in made.held_out] == [("base", 0.25), ("worker@1", 0.75), ("worker@2", 0.5)]
    assert made.policy == "worker@1"
    assert all(one.low <= one.mean <= one.high for one in jobs.measured)
    learned = {row.messages[-1].content for _, rows in jobs.trained.values() for row in rows}
    assert not learned & {"100", "101", "102", "103"}
    assert sampler.asked["base", 100] == 4


def test_the_tokens_that_a_round_will_take_follow_from_those_before(jobs: Jobs) -> None:
    jobs(Sampler(learning), rounds=2, best_of=2).run()
    (first, guess), (second, known) = jobs.served
    assert (first, second) == ("base", "worker@1")
    assert guess == 12 * CREW.workers[0].limits.tokens / 2
    assert 12 <= known < 100


def test_what_could_not_be_learned_from_is_refused_before_anything_is_sampled(jobs: Jobs, workspace: Workspace) -> None:
    sampler = Sampler(learning)
    named = CREW.model_copy(update={"workers": (CREW.workers[0].model_copy(update={"model": "big"}),)})
    (workspace.root.parent / "journeyman.toml").write_text(
        '[models.big]\nurl = "http://127.0.0.1:9"\nmodel = "org/large"\n'
    )
    with pytest.raises(ConfigError, match="worker is always answered by 'big'"):
        jobs(sampler, crew=named)
    (workspace.root.parent / "journeyman.toml").write_text('[traces]\ncontent = "digest"\n')
    with pytest.raises(ConfigError, match="nothing can be learned from what"):
        jobs(sampler)
    (workspace.root.parent / "journeyman.toml").unlink()
    with pytest.raises(ConfigError, match="scorer"):
        jobs(sampler, scorer="nothing:here")
    assert sampler.asked.total() == 0
