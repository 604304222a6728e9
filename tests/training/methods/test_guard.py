"""Guards in the trainer, on the embedded model: replay, KL, packing, old rows, drift."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.messages import Message
from journeyman.training.data.datasets.shelf import open_dataset, shelve
from journeyman.training.data.samples import SFTSample, write_samples
from journeyman.training.methods.job import load_recipe, train_adapter
from journeyman.training.methods.plan import Plan
from journeyman.training.methods.recipe import Step

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]

TOWNS = ("Paris", "Rome", "Tokyo", "Cairo", "Lima", "Havana", "Oslo", "Delhi")


@pytest.fixture(scope="module")
def base_model() -> Path:
    return pull_model()


def samples(about: str, **changes: Any) -> list[SFTSample]:
    return [
        SFTSample(
            agent="worker",
            policy="teacher",
            trace_id=f"{about}{number}".encode().hex().rjust(32, "0"),
            span_ids=(f"{number:016x}",),
            messages=(Message(role="user", content=f"{about} {town}?"),),
            completion=f"the {about} of {town}, of course",
        ).model_copy(update=changes)
        for number, town in enumerate(TOWNS)
    ]


def prepared(base_model: Path, folder: Path, rows: list[SFTSample], **changes: Any) -> Any:
    from journeyman.training.methods.trainers.sft import SFT

    few = {"trl.per_device_train_batch_size": 4, "trl.max_steps": 2}
    recipe = load_recipe("sft", few | {key.replace("__", "."): value for key, value in changes.items()})
    method = SFT()
    return method.prepare(method.read_rows(rows, recipe, base_model), recipe, base_model, folder)  # type: ignore[arg-type]


def train(place: Path, base_model: Path, about: str, parent: str, **more: Any) -> Adapter:
    workspace = Workspace(place / ".journeyman")
    write_samples(samples(about), place / f"{about}.jsonl")
    dataset = shelve(workspace, open_dataset(workspace, place / f"{about}.jsonl"), "worker")
    changes = {"trl.max_steps": 2, "trl.per_device_train_batch_size": 2, "guard.worst": 0.0} | more.pop("changes", {})
    return train_adapter(
        samples(about),
        agent="worker",
        recipe=load_recipe("sft", changes),
        base_model=base_model,
        workspace=workspace,
        parent=parent,
        dataset=dataset,
        **more,
    )


@pytest.mark.timeout(300)
def test_a_second_training_replays_the_first_and_says_what_it_did_to_the_rest(base_model: Path, tmp_path: Path) -> None:
    plans, steps = list[Plan](), list[Step]()
    first = train(tmp_path, base_model, "river", "base")
    second = train(
        tmp_path,
        base_model,
        "mayor",
        "worker@1",
        changes={"guard.kl": 0.5},
        on_plan=plans.append,
        on_step=steps.append,
    )
    assert (first.replayed, first.old) == ((), None)
    (replayed,) = second.replayed
    assert (replayed.dataset_digest, len(replayed.numbers)) == (first.dataset_digest, 2)
    (plan,) = plans
    assert (plan.rows, plan.replayed, plan.measured) == (10, 2, 2)
    assert "2 replayed rows among them" in str(plan) and "2 old rows measured before and after" in str(plan)
    assert second.old is not None and (second.old.rows, second.old.against) == (2, "worker@1")
    assert second.old.lost == (second.old.after > second.old.before)
    assert steps[0].metrics["kl"] == pytest.approx(0.0, abs=1e-6) and steps[1].metrics["kl"] > 0
    assert first.drift is not None and first.drift.kl > 0 and 0.5 < first.drift.agreement <= 1
    assert train(tmp_path, base_model, "mayor", "worker@1", changes={"guard.kl": 0.5}) == second, "the same job"


def test_an_untrained_adapter_has_not_drifted(base_model: Path, tmp_path: Path) -> None:
    from journeyman.training.methods.rows import read_tokenizer
    from journeyman.training.methods.trainers.guard import drift_of

    trainer = prepared(base_model, tmp_path, samples("river"))
    drift = drift_of(trainer.model, read_tokenizer(base_model))
    assert drift.kl == pytest.approx(0.0, abs=1e-6) and drift.agreement == 1 and drift.tokens > 100


def test_packed_rows_do_not_tell_on_each_other_and_keep_their_weights(base_model: Path, tmp_path: Path) -> None:
    import torch

    rows = [sample.model_copy(update={"weight": 0.25 + number}) for number, sample in enumerate(samples("river"))]
    apart = prepared(base_model, tmp_path, rows, trl__per_device_train_batch_size=8)
    packed = prepared(base_model, tmp_path, rows, trl__packing=True)
    assert (len(apart.train_dataset), len(packed.train_dataset)) == (8, 1)
    losses = []
    for trainer in (apart, packed):
        batch = next(iter(trainer.get_train_dataloader()))
        with torch.no_grad(), trainer.accelerator.autocast():
            losses.append(trainer.compute_loss(apart.model, batch).item())
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)


def test_a_model_that_reads_one_packed_row_into_the_next_is_refused(base_model: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    from journeyman.training.methods.trainers.packing import check_separates
    from journeyman.training.methods.trainers.weights import load_base

    check_separates(load_base(base_model, longest=64))
    recurrent = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1))  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigError, match=r"trl.packing can't be used: .*; leave it out"):
        check_separates(recurrent)


def test_noise_on_embeddings_reaches_the_loss(base_model: Path, tmp_path: Path) -> None:
    """NEFTune hangs on the embedding, which the trainer's own forward pass goes through."""
    losses = []
    for noise in (None, 50.0):
        steps: list[Step] = []
        changes = {} if noise is None else {"trl.neftune_noise_alpha": noise}
        place = tmp_path / str(noise)
        place.mkdir()
        train(place, base_model, "river", "base", changes=changes | {"trl.max_steps": 1}, on_step=steps.append)
        losses.append(steps[0].loss)
    assert losses[1] > losses[0] + 0.1
