"""DPO and KTO on the embedded model: real TRL, few steps."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.adapter import Adapter, load_adapter
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError, TrainingError
from journeyman.traces.messages import Message
from journeyman.training.data.samples import KTOSample, PreferenceSample, Sample, SFTSample, Side, read_samples
from journeyman.training.methods.job import start_of, train_adapter
from journeyman.training.methods.plan import Facts, plan_training
from journeyman.training.methods.recipe import Step, TRLRecipe
from journeyman.training.methods.recipes.known import load_recipe

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima", "Cuba": "Havana"}


@pytest.fixture(scope="module")
def base_model() -> Path:
    return pull_model()


def ids(number: int) -> dict[str, Any]:
    return {"trace_id": f"{number:032x}", "span_ids": (f"{number:016x}",)}


def asked(country: str) -> tuple[Message, ...]:
    return (Message(role="user", content=f"Capital of {country}?"),)


def side(number: int, completion: str, **changes: Any) -> Side:
    return Side(policy="worker@1", completion=completion, **ids(number), **changes)


def pairs(**changes: Any) -> list[PreferenceSample]:
    return [
        PreferenceSample(
            agent="worker",
            origin="sampled",
            margin=1.0,
            messages=asked(country),
            **{
                "chosen": side(number, capital),
                "rejected": side(number + 100, "I don't know."),
                **ids(number),
                **changes,
            },
        )
        for number, (country, capital) in enumerate(CAPITALS.items())
    ]


def judged(**changes: Any) -> list[KTOSample]:
    return [
        KTOSample(
            agent="worker",
            policy="worker@1",
            origin="thumbs",
            label=number % 3 > 0,
            messages=asked(country),
            completion=capital,
            **ids(number) | changes,
        )
        for number, (country, capital) in enumerate(CAPITALS.items())
    ]


def demonstrations() -> list[SFTSample]:
    return [
        SFTSample(agent="worker", policy="teacher", messages=asked(country), completion=capital, **ids(number))
        for number, (country, capital) in enumerate(CAPITALS.items())
    ]


SAMPLES: dict[str, Any] = {"dpo": pairs, "kto": judged}


def short(method: str, **changes: Any) -> Any:
    settings = {"max_steps": 3, "save_steps": 1, "per_device_train_batch_size": 2} | changes
    return load_recipe(method, {key if "." in key else f"trl.{key}": value for key, value in settings.items()})


def train(place: Path, base_model: Path, rows: list[Any], recipe: Any, **more: Any) -> Adapter:
    workspace = Workspace(place / ".journeyman")
    return train_adapter(rows, agent="worker", recipe=recipe, base_model=base_model, workspace=workspace, **more)


def prepared(method: Any, rows: list[Any], recipe: Any, base_model: Path, folder: Path, **more: Any) -> Any:
    return method.prepare(method.read_rows(rows, recipe, base_model), recipe, base_model, folder, **more)


class TestRecipes:
    @pytest.mark.parametrize("method", ["dpo", "kto"])
    def test_they_start_from_the_policy_in_service(self, method: str) -> None:
        assert start_of(load_recipe(method), "worker@7") == "worker@7"

    def test_they_learn_slower_and_for_less_long_than_sft(self) -> None:
        facts = Facts(rows=600, held_out=0, longest=1000, parameters=135_000_000)
        sft, dpo = (plan_training(load_recipe(name), {}, facts, {}) for name in ("sft", "dpo"))
        assert dpo.trl["learning_rate"] == pytest.approx(sft.trl["learning_rate"] / 10)
        assert dpo.epochs < sft.epochs
        assert dpo.trl["per_device_train_batch_size"] == sft.trl["per_device_train_batch_size"] / 2
        whys = {choice.key: choice.why for choice in dpo.choices}
        assert "a tenth of SFT's" in whys["trl.learning_rate"]

    def test_dpo_has_an_sft_term_unless_the_recipe_says_which_loss(self) -> None:
        rules = {key: value for key, value, _ in load_trl("dpo").rules(pairs())}
        assert rules == {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]}
        assert load_trl("dpo", {"trl.loss_type": ["ipo"]}).rules(pairs()) == ()

    def test_kto_weighs_both_sides_alike(self) -> None:
        rules = {key: value for key, value, _ in load_trl("kto").rules(judged())}
        assert rules == {"desirable_weight": 1.0, "undesirable_weight": 2.0}, "four are good, two bad"
        assert load_trl("kto", {"trl.desirable_weight": 3.0}).rules(judged()) == ()

    def test_kto_needs_replies_of_both_kinds(self) -> None:
        with pytest.raises(TrainingError, match="all 6 replies to learn from are good, and KTO needs both: mine more"):
            load_trl("kto").rules([sample.model_copy(update={"label": True}) for sample in judged()])

    @pytest.mark.parametrize(
        ("method", "key", "value", "complaint"),
        [
            ("dpo", "trl.loss_type", ["aot"], "loss_type can't be 'aot': write one of sigmoid, "),
            ("dpo", "trl.f_divergence_type", "magic", "f_divergence_type can't be 'magic'"),
            (
                "dpo",
                "trl.label_smoothing",
                0.1,
                "label_smoothing does nothing here: set loss_type to exo_pair or robust",
            ),
            ("dpo", "trl.precompute_ref_log_probs", False, "the reference doesn't change, and is computed once"),
            ("dpo", "trl.padding_free", True, "TRL has no such form of DPO"),
            ("dpo", "trl.model_init_kwargs", {}, "model_init_kwargs can't be set"),
            ("dpo", "lora.dropout", 0.1, "lora.dropout does nothing here"),
            ("kto", "trl.loss_type", "magic", "loss_type can't be 'magic': write one of kto, apo_zero_unpaired"),
            ("kto", "trl.per_device_train_batch_size", 1, "KTO estimates its KL from the other rows; write 2 or more"),
            ("kto", "trl.train_sampling_strategy", "random", "rows are shuffled once"),
        ],
    )
    def test_what_would_do_nothing_or_fail_late_is_refused(
        self, method: str, key: str, value: Any, complaint: str
    ) -> None:
        with pytest.raises(ConfigError, match=complaint) as raised:
            load_recipe(method, {key: value})
        assert "\n" not in str(raised.value)


def load_trl(name: str, overrides: dict[str, Any] | None = None) -> TRLRecipe:
    recipe = load_recipe(name, overrides)
    assert isinstance(recipe, TRLRecipe)
    return recipe


class TestRefused:
    """In one line, before a step is made."""

    @pytest.mark.parametrize(
        ("method", "rows", "kind"),
        [("dpo", judged(), "preference"), ("kto", pairs(), "kto"), ("dpo", demonstrations(), "preference")],
    )
    def test_rows_of_another_kind(self, tmp_path: Path, method: str, rows: list[Sample], kind: str) -> None:
        with pytest.raises(TrainingError, match=f"method {method} learns from rows of kind {kind}, these are of kind "):
            train(tmp_path, tmp_path, rows, load_recipe(method))

    def test_a_pair_whose_sides_are_equal(self, tmp_path: Path) -> None:
        row = pairs()[0].model_dump(mode="json", exclude_none=True)
        row["rejected"]["completion"] = row["chosen"]["completion"]
        path = tmp_path / "pairs.jsonl"
        path.write_text(json.dumps(row) + "\n")
        with pytest.raises(TrainingError, match=r"line 1: .*the sides of a pair must differ") as raised:
            read_samples(path, PreferenceSample)
        assert "\n" not in str(raised.value)

    def test_a_reference_that_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(AdapterError, match="there is no adapter worker@3 in "):
            train(tmp_path, tmp_path, pairs(), load_recipe("dpo"), parent="worker@3")

    def test_a_rank_that_the_server_cannot_take(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"lora.r is 64, the server takes 8"):
            train(tmp_path, tmp_path, judged(), load_recipe("kto", {"lora.r": 64}))

    @pytest.mark.parametrize("method", ["dpo", "kto"])
    def test_a_row_over_the_limit(self, base_model: Path, tmp_path: Path, method: str) -> None:
        with pytest.raises(TrainingError, match=r"6 of 6 samples are longer than trl.max_length = 5 and would be cut"):
            train(tmp_path, base_model, SAMPLES[method](), short(method, max_length=5))

    def test_sides_that_are_the_same_tokens(self, base_model: Path, tmp_path: Path) -> None:
        same = {"token_ids": (20, 21)}
        rows = pairs(prompt_token_ids=(10, 11), chosen=side(1, "a", **same), rejected=side(2, "b", **same))
        with pytest.raises(TrainingError, match="both sides of the pair are the same tokens"):
            train(tmp_path, base_model, rows[:1], short("dpo"))


class TestRows:
    def test_the_servers_tokens_are_kept_on_each_side_that_has_them(self, base_model: Path) -> None:
        from journeyman.training.methods.rows import read_tokenizer, stops_of
        from journeyman.training.methods.trainers.dpo import DPO

        tokenizer = read_tokenizer(base_model)
        (sample,) = pairs(prompt_token_ids=(10, 11, 12), chosen=side(1, "Paris", token_ids=(20, 21)), weight=0.5)[:1]
        (row,) = DPO().rows([sample], load_recipe("dpo"), tokenizer, stops_of(base_model, tokenizer))  # type: ignore[arg-type]
        assert (row["prompt_ids"], row["chosen_ids"], row["weight"]) == ([10, 11, 12], [20, 21], 0.5)
        assert tokenizer.decode(row["rejected_ids"]) == "I don't know.<|im_end|>"

    def test_a_reply_is_written_as_a_server_would(self, base_model: Path) -> None:
        from journeyman.training.methods.rows import read_tokenizer, stops_of
        from journeyman.training.methods.trainers.kto import KTO

        tokenizer = read_tokenizer(base_model)
        row = KTO().rows(judged(), load_recipe("kto"), tokenizer, stops_of(base_model, tokenizer))[1]  # type: ignore[arg-type]
        assert str(tokenizer.decode(row["prompt_ids"])).endswith("Capital of Italy?<|im_end|>\n<|im_start|>assistant\n")
        assert (tokenizer.decode(row["completion_ids"]), row["label"]) == ("Rome<|im_end|>", True)


@pytest.fixture(scope="module")
def served(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace's folder with worker@1, which knows the capitals a little."""
    place = tmp_path_factory.mktemp("served")
    train(place, base_model, demonstrations(), short("sft", max_steps=2, learning_rate=5e-3))
    return place


def begun(served: Path, tmp_path: Path) -> Path:
    shutil.copytree(served / ".journeyman" / "adapters", tmp_path / ".journeyman" / "adapters")
    return tmp_path


@pytest.mark.train
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_reference_is_the_policy_in_service_and_what_is_learned_is_told(
    served: Path, base_model: Path, tmp_path: Path, method: str
) -> None:
    place, steps = begun(served, tmp_path), list[Step]()
    recipe = short(method, learning_rate=1e-3)
    adapter = train(place, base_model, SAMPLES[method](), recipe, parent="worker@1", on_step=steps.append)
    assert (adapter.policy, adapter.start, adapter.method) == ("worker@2", "worker@1", method)
    first, last = steps[0].metrics, steps[-1].metrics
    rewards = [abs(first[key]) for key in ("rewards/chosen", "rewards/rejected") if key in first]
    assert max(rewards) < 0.1, "before the first step the policy is its own reference"
    assert "kl" in last
    assert adapter.metrics["kl"] == pytest.approx(last["kl"], abs=1e-5)
    assert "rewards/margins" in adapter.metrics
    if method == "dpo":
        assert last["rewards/margins"] > 0 and "rewards/accuracies" in adapter.metrics
    folder = place / ".journeyman" / "adapters" / "worker@2"
    assert load_adapter(folder) == adapter
    assert {file.name for file in folder.iterdir()} == {file.name for file in (folder.parent / "worker@1").iterdir()}


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
def test_reference_logprobs_are_those_of_the_start_and_not_of_the_base(
    served: Path, base_model: Path, tmp_path: Path
) -> None:
    import torch

    from journeyman.training.methods.trainers.dpo import DPO

    start = served / ".journeyman" / "adapters" / "worker@1"
    trainer = prepared(DPO(), pairs(), short("dpo"), base_model, tmp_path, start=start)
    row, model = trainer.train_dataset[0], trainer.model
    assert list(model.peft_config) == ["default"], "the copy has done its work"

    def logprob() -> float:
        ids = torch.tensor([row["prompt_ids"] + row["chosen_ids"]])
        with torch.no_grad(), trainer.accelerator.autocast():
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        return float(logits.gather(1, ids[0, 1:, None])[len(row["prompt_ids"]) - 1 :].sum())

    model.eval()
    begun = logprob()
    with model.disable_adapter():
        base = logprob()
    assert row["ref_chosen_logps"] == pytest.approx(begun, abs=0.3)
    assert abs(begun - base) > 1


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_loss_is_trls_own_and_weights_scale_its_gradient(base_model: Path, tmp_path: Path, method: str) -> None:
    import torch
    from datasets import Dataset  # type: ignore[import-untyped]
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.kto_trainer import KTOTrainer

    from journeyman.training.methods.rows import read_tokenizer
    from journeyman.training.methods.trainers.dpo import DPO
    from journeyman.training.methods.trainers.kto import KTO
    from journeyman.training.methods.trainers.weights import load_base, lora

    recipe = short(method)
    ours, trls = {"dpo": (DPO, DPOTrainer), "kto": (KTO, KTOTrainer)}[method]
    trainer = prepared(ours(), SAMPLES[method]()[:2], recipe, base_model, tmp_path)
    tokenizer = read_tokenizer(base_model)

    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids)).removesuffix(str(tokenizer.eos_token))

    tokens = ("prompt_ids", "chosen_ids", "rejected_ids", "completion_ids")
    plain = [
        {key.removesuffix("_ids"): text(row[key]) for key in tokens if key in row}
        | {key: row[key] for key in ("label",) if key in row}
        for row in trainer.train_dataset
    ]
    theirs: Any = trls(
        model=load_base(base_model, longest=100),
        args=trainer.args,
        train_dataset=Dataset.from_list(plain),
        processing_class=tokenizer,
        peft_config=lora(recipe, base_model),
    )
    weights = [param for name, param in trainer.model.named_parameters() if "lora_B" in name]
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        noise = [torch.randn(param.shape, generator=generator) * 0.02 for param in weights]
        for model in (trainer.model, theirs.model):
            model.train()
            for param, values in zip((p for n, p in model.named_parameters() if "lora_B" in n), noise, strict=True):
                param.copy_(values)
    batch = trainer.data_collator(list(trainer.train_dataset))
    other = theirs.data_collator(list(theirs.train_dataset))
    with trainer.accelerator.autocast():
        loss = trainer.compute_loss(trainer.model, dict(batch))
        expected = theirs.compute_loss(theirs.model, other)
        halved = trainer.compute_loss(trainer.model, batch | {"weight": batch["weight"] / 2})
    assert loss.item() == pytest.approx(expected.item(), rel=5e-3)
    whole, half = (torch.autograd.grad(one, weights[0], retain_graph=True)[0] for one in (loss, halved))
    assert torch.allclose(half, whole / 2, rtol=1e-2, atol=1e-4 * float(whole.abs().max()))


@pytest.mark.train
def test_a_run_that_was_cut_short_ends_as_if_nothing_had_been(served: Path, base_model: Path, tmp_path: Path) -> None:
    recipe, partial = short("dpo"), Path(".journeyman") / "adapters" / ".worker@2.partial"

    def keep(step: Step) -> None:
        if step.number == 2:  # The folder as a kill would leave it: with the checkpoint of the first step.
            shutil.copytree(tmp_path / "whole" / partial, tmp_path / "cut" / partial)

    whole = train(begun(served, tmp_path / "whole"), base_model, pairs(), recipe, parent="worker@1", on_step=keep)
    shutil.copytree(
        served / ".journeyman" / "adapters" / "worker@1", tmp_path / "cut" / ".journeyman" / "adapters" / "worker@1"
    )
    steps: list[int] = []
    cut = train(
        tmp_path / "cut", base_model, pairs(), recipe, parent="worker@1", on_step=lambda step: steps.append(step.number)
    )
    assert steps == [2, 3]
    assert (cut.digest, cut.metrics) == (whole.digest, whole.metrics)
