"""SFT on the embedded model: real TRL, few steps."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any, cast

import pytest

from journeyman.runtime.adapters.adapter import Adapter, load_adapter, read_probe
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError, TrainingError
from journeyman.traces.messages import Message
from journeyman.training.data.samples import SFTSample, write_samples
from journeyman.training.methods.checkpoints import Checkpoint
from journeyman.training.methods.job import plan_job, train_adapter, try_job
from journeyman.training.methods.plan import Plan
from journeyman.training.methods.recipe import Recipe, Step
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.methods.recipes.sft import SFTRecipe
from journeyman.training.tracking import run_of

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima", "Cuba": "Havana"}


@pytest.fixture(scope="module")
def base_model() -> Path:
    return pull_model()


def samples(**changes: Any) -> list[SFTSample]:
    return [
        SFTSample(
            agent="worker",
            policy="teacher",
            trace_id=f"{number:032x}",
            span_ids=(f"{number:016x}",),
            messages=(Message(role="system", content="Reply."), Message(role="user", content=f"Capital of {country}?")),
            completion=json.dumps({"answer": capital}),
            prompt_form="a" * 16,
        ).model_copy(update=changes)
        for number, (country, capital) in enumerate(CAPITALS.items())
    ]


def short(**changes: Any) -> SFTRecipe:
    settings = {"max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 2} | changes
    recipe = load_recipe("sft", {f"trl.{key}": value for key, value in settings.items()})
    assert isinstance(recipe, SFTRecipe)
    return recipe


def train(place: Path, base_model: Path, rows: list[SFTSample], recipe: Recipe, **more: Any) -> Adapter:
    workspace = Workspace(place / ".journeyman")
    return train_adapter(rows, agent="worker", recipe=recipe, base_model=base_model, workspace=workspace, **more)


def prepared(method: Any, rows: list[SFTSample], base_model: Path, folder: Path) -> Any:
    return method.prepare(method.read_rows(rows, short(), base_model), short(), base_model, folder)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestRefused:
    """Before any model is loaded."""

    def test_no_samples(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="no samples to train worker on"):
            train(tmp_path, tmp_path, [], short())

    def test_samples_of_another_agent(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="the samples are of planner, not of worker"):
            train(tmp_path, tmp_path, samples(agent="planner"), short())

    def test_samples_in_two_prompts(self, tmp_path: Path) -> None:
        rows = samples()[:2] + samples(prompt_form="b" * 16)[2:]
        with pytest.raises(TrainingError, match="the samples show worker in different prompts: mine them again"):
            train(tmp_path, tmp_path, rows, short())

    def test_a_rank_that_the_server_cannot_take(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"lora.r is 64, the server takes 8"):
            train(tmp_path, tmp_path, samples(), load_recipe("sft", {"lora.r": 64}))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"max_steps": "x"}, 'trl.max_steps = "x": Input should be a valid integer'),
        ({"weight_decay": "x"}, 'trl.weight_decay = "x": Input should be a valid number'),
        ({"optim": "magic"}, "trl: magic is not a valid OptimizerNames"),
        ({"optim_args": "nonsense"}, "trl.optim_args can't be used: not enough values to unpack"),
        ({"lr_scheduler_kwargs": "nonsense"}, "trl.lr_scheduler_kwargs can't be used: .* must be a mapping, not str"),
    ],
)
def test_an_explanation_refuses_what_a_training_would(
    base_model: Path, tmp_path: Path, values: dict[str, Any], complaint: str
) -> None:
    workspace = Workspace(tmp_path / ".journeyman")
    job: dict[str, Any] = {"agent": "worker", "base_model": base_model, "workspace": workspace}
    with pytest.raises(ConfigError, match=complaint):
        plan_job(samples(), recipe=short(**values), **job)
    with pytest.raises(TrainingError, match="no samples to train worker on"):
        plan_job([], recipe=short(), **job)
    with pytest.raises(AdapterError, match="there is no adapter worker@9"):
        plan_job(samples(), recipe=short(), start="worker@9", **job)


@pytest.mark.train
@pytest.mark.parametrize(
    ("key", "value"), [("lora.target_modules", ["magic"]), ("lora.target_modules", []), ("trl.seed", -1)]
)
def test_what_a_library_refuses_of_a_recipe_is_one_line(
    base_model: Path, tmp_path: Path, key: str, value: object
) -> None:
    with pytest.raises(ConfigError, match="the recipe can't be used: "):
        train(tmp_path, base_model, samples(), load_recipe("sft", {key: value}))


@pytest.mark.train
def test_a_layer_that_is_not_there_is_refused_beside_those_that_are(base_model: Path, tmp_path: Path) -> None:
    recipe = load_recipe("sft", {"lora.target_modules": ["q_proj", "magic"]})
    with pytest.raises(
        ConfigError, match=r"no layer 'magic' that lora.target_modules names: it has .*down_proj.*q_proj"
    ):
        train(tmp_path, base_model, samples(), recipe)


@dataclass(frozen=True)
class Trained:
    """One adapter, trained once for all who look at it."""

    place: Path
    uri: str
    adapter: Adapter
    steps: list[Step]

    @property
    def folder(self) -> Path:
        return self.place / ".journeyman" / "adapters" / "worker@1"


@pytest.fixture(scope="module")
def trained(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    place = tmp_path_factory.mktemp("trained")
    uri = f"sqlite:///{place / 'mlflow.db'}"
    steps: list[Step] = []
    adapter = train(place, base_model, samples(), short(), mlflow_uri=uri, on_step=steps.append)
    return Trained(place=place, uri=uri, adapter=adapter, steps=steps)


@pytest.mark.train
def test_it_learns_and_says_so_at_each_step(trained: Trained) -> None:
    assert [(step.number, step.steps) for step in trained.steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert trained.steps[-1].loss < trained.steps[0].loss - 0.5


@pytest.mark.train
def test_the_adapters_folder_is_whole_and_nothing_else_is_left(trained: Trained) -> None:
    assert load_adapter(trained.folder) == trained.adapter
    assert list(trained.folder.parent.iterdir()) == [trained.folder]
    names = {"adapter.json", "adapter_config.json", "adapter_model.safetensors", "probe.json"}
    assert {file.name for file in trained.folder.iterdir()} == names
    adapter = trained.adapter
    assert (adapter.rows, adapter.rank, adapter.parent, adapter.method) == (6, 8, "base", "sft")
    assert adapter.prompt_form == "a" * 16


@pytest.mark.train
def test_the_probe_tells_the_adapter_from_the_base_model(trained: Trained) -> None:
    probe = read_probe(trained.folder)
    gaps = [abs(ours - base) for ours, base in zip(probe.adapter_logprobs, probe.base_logprobs, strict=True)]
    assert sum(gaps) / len(gaps) > 0.1
    assert all(logprob <= 0 for logprob in (*probe.adapter_logprobs, *probe.base_logprobs))


@pytest.mark.train
def test_the_same_job_is_not_trained_again(trained: Trained, base_model: Path) -> None:
    def fail(step: int, total: int, loss: float) -> None:
        raise AssertionError("it was trained again")

    assert train(trained.place, base_model, samples(), short(), on_step=fail) == trained.adapter


@pytest.mark.train
def test_another_job_does_not_take_an_adapters_number(trained: Trained, base_model: Path) -> None:
    with pytest.raises(TrainingError, match="worker@1 was trained from other samples"):
        train(trained.place, base_model, samples()[:2], short(), number=1)


@pytest.mark.train
def test_mlflow_shows_parameters_losses_and_lineage(trained: Trained) -> None:
    client = pytest.importorskip("mlflow").MlflowClient(tracking_uri=trained.uri)
    run_id = run_of(trained.adapter, uri=trained.uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.params["lora.r"], run.data.params["trl.max_steps"]) == ("8", "4")
    assert run.data.tags["policy"] == "worker@1"
    assert run.data.tags["dataset_digest"] == trained.adapter.dataset_digest
    assert len(client.get_metric_history(run_id, "loss")) == 4


@pytest.mark.train
def test_it_stops_when_held_out_rows_are_learned_no_more_and_keeps_the_best_weights(
    base_model: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(
        "sft",
        {
            "eval.share": 0.34,
            "eval.patience": 2,
            "trl.max_steps": 12,
            "trl.save_steps": 1,
            "trl.per_device_train_batch_size": 2,
            "trl.learning_rate": 5e-2,
        },
    )
    plans: list[Plan] = []
    adapter = train(tmp_path, base_model, samples(), recipe, on_plan=plans.append)
    assert [(plan.rows, plan.held_out, plan.steps) for plan in plans] == [(4, 2, 12)]
    assert adapter.steps is not None and adapter.steps < 12
    assert adapter.eval_loss is not None
    assert adapter.epochs == adapter.steps * 2 / 4


@pytest.mark.train
@pytest.mark.timeout(300)
@pytest.mark.parametrize("before_the_end", [0, 1])
def test_a_run_that_was_cut_short_stops_where_it_would_have(
    base_model: Path, tmp_path: Path, before_the_end: int
) -> None:
    trl = {"max_steps": 12, "save_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 5e-2}
    stops = {"eval.share": 0.34, "eval.patience": 3}
    recipe = load_recipe("sft", stops | {f"trl.{key}": value for key, value in trl.items()})
    kept = tmp_path / "kept"
    partial = Path(".journeyman") / "adapters" / ".worker@1.partial"

    def keep(step: Step) -> None:
        # The folder as a kill at this step would leave it: with the checkpoints of the steps before.
        shutil.rmtree(kept / str(step.number), ignore_errors=True)
        shutil.copytree(tmp_path / "whole" / partial, kept / str(step.number) / partial)

    whole = train(tmp_path / "whole", base_model, samples(), recipe, on_step=keep)
    assert whole.steps is not None and 3 < whole.steps < 12
    cut = kept / str(whole.steps - before_the_end)
    best = json.loads(next((cut / partial / "checkpoints").glob("*/trainer_state.json")).read_text())
    assert best["best_metric"] is not None
    times = {"train_seconds", "created_ns"}
    assert train(cut, base_model, samples(), recipe).model_dump(exclude=times) == whole.model_dump(exclude=times)


@pytest.mark.train
def test_weights_on_other_layers_are_refused_with_the_layers(base_model: Path, tmp_path: Path) -> None:
    few = load_recipe("sft", {"lora.target_modules": ["q_proj"], "trl.max_steps": 1})
    train(tmp_path, base_model, samples(), few)
    with pytest.raises(ConfigError, match=r"worker@1 is on the layers q_proj, the recipe says down_proj, "):
        train(tmp_path, base_model, samples(), short(), start="worker@1")
    dropping = load_recipe("sft", {"lora.target_modules": ["q_proj"], "lora.dropout": 0.5, "trl.max_steps": 1})
    train(tmp_path, base_model, samples(), dropping, start="worker@1")
    config = tmp_path / ".journeyman" / "adapters" / "worker@2" / "adapter_config.json"
    assert json.loads(config.read_text())["lora_dropout"] == 0.5


@pytest.mark.train
def test_it_goes_on_from_an_adapters_weights_and_says_so(trained: Trained, base_model: Path, tmp_path: Path) -> None:
    steps: list[float] = []
    shutil.copytree(trained.folder, tmp_path / ".journeyman" / "adapters" / "worker@1")
    again = short(max_steps=1)
    adapter = train(
        tmp_path, base_model, samples(), again, start="worker@1", on_step=lambda step: steps.append(step.loss)
    )
    assert (adapter.policy, adapter.start, adapter.start_digest) == ("worker@2", "worker@1", trained.adapter.digest)
    assert adapter.parent == "base"
    assert steps[0] < trained.steps[0].loss - 0.5, "what worker@1 has learned is there"


@pytest.mark.train
def test_weights_of_a_larger_rank_are_refused_before_anything_is_trained(
    trained: Trained, base_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained.folder, tmp_path / ".journeyman" / "adapters" / "worker@1")
    with pytest.raises(
        ConfigError, match=r"worker@1 has rank 8, which doesn't fit into the recipe's 4: add --set lora.r=8"
    ):
        train(tmp_path, base_model, samples(), load_recipe("sft", {"lora.r": 4}), start="worker@1")


@pytest.mark.train
def test_a_trial_tells_the_price_of_a_step_and_keeps_nothing(base_model: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / ".journeyman")
    trial = try_job(samples(), agent="worker", recipe=short(), base_model=base_model, workspace=workspace)
    assert trial.plan.steps == 4 and trial.seconds == pytest.approx(4 * trial.step_seconds)
    assert trial.step_seconds > 0 and trial.peak_mb > 200
    assert not (tmp_path / ".journeyman" / "adapters").exists()


@pytest.mark.train
@pytest.mark.timeout(300)
def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_as_if_nothing_had_been(
    trained: Trained, base_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    write_samples(samples(), data)
    settings = ["--set", "trl.max_steps=4", "--set", "trl.save_steps=2", "--set", "trl.per_device_train_batch_size=2"]
    journeyman = [sys.executable, "-c", "from journeyman.runtime.cli import main; main()"]
    process = subprocess.Popen(
        [*journeyman, "train", "--agent", "worker", "--data", data, *settings, "-C", tmp_path / ".journeyman"],
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / ".journeyman" / "adapters" / ".worker@1.partial"
    while process.poll() is None and not (partial / "checkpoints" / "checkpoint-2" / "whole.json").exists():
        sleep(0.02)
    process.kill()
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL
    # Behind them may be how long it has taken so far.
    assert said.splitlines()[:2] == [
        "6 samples for worker; base model smollm2-135m-instruct",
        "training starts from the base model smollm2-135m-instruct",
    ]
    (partial / "checkpoints" / "checkpoint-3").mkdir()  # As a kill in the middle of saving would leave it.

    uri = Workspace(tmp_path / ".journeyman").mlflow_uri
    steps: list[int] = []
    started: list[Checkpoint | None] = []
    resumed = train(
        tmp_path,
        base_model,
        samples(),
        short(),
        mlflow_uri=uri,
        on_start=started.append,
        on_step=lambda step: steps.append(step.number),
    )
    assert [checkpoint and checkpoint.step for checkpoint in started] == [2]
    assert steps == [3, 4]
    assert not partial.exists()
    logged = (
        pytest.importorskip("mlflow")
        .MlflowClient(tracking_uri=uri)
        .get_metric_history(run_of(resumed, uri=uri), "loss")
    )
    assert {metric.step for metric in logged} == {1, 2, 3, 4}
    assert resumed.digest == trained.adapter.digest


@pytest.mark.train
def test_a_full_disk_ends_the_run_in_one_line(base_model: Path, tmp_path: Path) -> None:
    with largest_file(1 << 20), pytest.raises(TrainingError, match="training worker@1 stopped after step 1") as raised:
        train(tmp_path, base_model, samples(), short(save_steps=1))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / ".journeyman" / "adapters" / "worker@1").exists()


@pytest.mark.train
def test_a_loss_that_is_no_number_ends_the_run(base_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"of step 2 is .*: lower trl.learning_rate"):
        train(tmp_path, base_model, samples(), short(learning_rate=1e30, max_grad_norm=0.0))


@pytest.mark.train
def test_samples_are_never_cut(base_model: Path, tmp_path: Path) -> None:
    rows = [*samples(), *samples(completion="again " * 200)[:1]]
    with pytest.raises(TrainingError, match=r"1 of 7 samples are longer than trl.max_length = 128 .*: set it to \d+"):
        train(tmp_path, base_model, rows, short(max_length=128))


@pytest.mark.train
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"lr": 1e-3}, "recipe: unknown key 'trl.lr'"), ({"optim": "magic"}, "recipe: trl: .*magic")],
)
def test_what_trl_does_not_know_is_refused_in_one_line(
    base_model: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as raised:
        train(tmp_path, base_model, samples(), short(**changes))
    assert "\n" not in str(raised.value)


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
def test_the_loss_is_trls_own_and_weights_scale_it(base_model: Path, tmp_path: Path) -> None:
    import torch
    from trl.trainer.sft_trainer import SFTTrainer

    from journeyman.training.methods.trainers.sft import SFT

    trainer = prepared(SFT(), samples(weight=0.5), base_model, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    assert trainer.model is not None
    with torch.no_grad(), trainer.accelerator.autocast():
        halved = trainer.compute_loss(trainer.model, dict(batch))
        whole = trainer.compute_loss(trainer.model, batch | {"weight": torch.ones(2)})
        del batch["weight"]
        trls = SFTTrainer.compute_loss(trainer, trainer.model, batch)  # type: ignore[no-untyped-call]
    assert whole.item() == pytest.approx(trls.item(), rel=2e-3)
    assert halved.item() == pytest.approx(whole.item() / 2)


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
def test_the_servers_tokens_are_learned_as_they_are(base_model: Path, tmp_path: Path) -> None:
    from journeyman.training.methods.trainers.sft import SFT

    rows = samples(prompt_token_ids=(10, 11, 12), token_ids=(20, 21))
    row = cast(Any, prepared(SFT(), rows, base_model, tmp_path).train_dataset)[0]
    assert row["input_ids"] == [10, 11, 12, 20, 21]
    assert row["labels"] == [-100, -100, -100, 20, 21]


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
def test_a_demonstration_is_learned_to_the_end_of_its_turn(base_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from journeyman.training.methods.trainers.sft import SFT

    row = cast(Any, prepared(SFT(), samples(), base_model, tmp_path).train_dataset)[0]
    text = AutoTokenizer.from_pretrained(base_model).decode(row["input_ids"])
    turns = "<|im_start|>system\nReply.<|im_end|>\n<|im_start|>user\nCapital of France?<|im_end|>\n"
    assert text == turns + '<|im_start|>assistant\n{"answer": "Paris"}<|im_end|>'
    learned = [token for token in row["labels"] if token != -100]
    assert AutoTokenizer.from_pretrained(base_model).decode(learned) == '{"answer": "Paris"}<|im_end|>'
