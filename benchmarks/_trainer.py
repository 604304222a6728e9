"""Some steps of one method's training, by journeyman or by plain TRL on the same rows. Run as a process."""

import json
import logging
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

from _trainer_grpo import rewarded

from journeyman.agents.model import BASE
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.messages import Message
from journeyman.training.data.samples import DocumentSample, KTOSample, PreferenceSample, Sample, SFTSample, Side
from journeyman.training.methods.method import method_of
from journeyman.training.methods.recipes.known import load_recipe

REPLY = 24
"""Tokens of each reply that distillation samples; the same for both sides."""
RIVERS = ("Sava", "Drava", "Mura", "Kupa", "Una", "Neretva", "Cetina", "Krka", "Zrmanja", "Mirna", "Bosut", "Orljava")
ROWS = 24


def sentences(number: int, count: int) -> str:
    names = [RIVERS[(number + place) % len(RIVERS)] for place in range(count)]
    return " ".join(f"The river {name} is gauge {number} of {count} on the map." for name in names)


def ids(number: int) -> dict[str, Any]:
    return {"trace_id": f"{number:032x}", "span_ids": (f"{number:016x}",)}


def asked(number: int, size: int) -> tuple[Message, ...]:
    return (Message(role="user", content=f"{sentences(number, size)} Which river was named first?"),)


def side(number: int, text: str) -> Side:
    return Side(policy="clerk@1", completion=text, **ids(number))


def samples(method: str, size: int) -> list[Any]:
    """Rows whose prompt has `size` sentences of about 16 tokens, and whose reply has two."""

    def imitated(n: int) -> SFTSample:
        told = {"agent": "clerk", "policy": "teacher", "completion": sentences(n, 2)}
        return SFTSample(messages=asked(n, size), **told, **ids(n))

    made: dict[str, Callable[[int], Sample]] = {
        "sft": imitated,
        "distill": imitated,
        "dpo": lambda n: PreferenceSample(
            agent="clerk",
            origin="sampled",
            margin=1.0,
            messages=asked(n, size),
            chosen=side(n, sentences(n, 2)),
            rejected=side(n + ROWS, sentences(n + 1, 2)),
            **ids(n),
        ),
        "kto": lambda n: KTOSample(
            agent="clerk",
            policy="clerk@1",
            origin="thumbs",
            label=n % 2 == 0,
            messages=asked(n, size),
            completion=sentences(n, 2),
            **ids(n),
        ),
        "cpt": lambda n: DocumentSample(
            agent="clerk", origin="folder", sources=(f"{n}.md",), licence="CC0", text=sentences(n, size + 2)
        ),
    }
    return [made[method](number) for number in range(ROWS)]


def as_trl_reads(method: str, sample: Any) -> dict[str, Any]:
    """The row in the form that TRL's documentation asks for."""
    if method == "cpt":
        return {"text": sample.text}
    prompt = [{"role": "user", "content": sample.messages[0].content}]
    if method == "distill":
        return {"prompt": prompt}

    def reply(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    if method == "dpo":
        chosen, rejected = sample.chosen.completion, sample.rejected.completion
        return {"prompt": prompt, "chosen": reply(chosen), "rejected": reply(rejected)}
    row = {"prompt": prompt, "completion": reply(sample.completion)}
    return row | {"label": sample.label} if method == "kto" else row


def plain(method: str, rows: list[Any], arguments: dict[str, Any], base_model: Path, recipe: Any) -> Any:
    """TRL's trainer as its documentation shows it, with the same arguments; the reference is left to it."""
    import trl
    from datasets import Dataset  # type: ignore[import-untyped]
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = {"sft": "SFT", "cpt": "SFT", "dpo": "DPO", "kto": "KTO", "distill": "Distillation"}[method]
    teacher = AutoModelForCausalLM.from_pretrained(base_model, dtype="bfloat16") if method == "distill" else None
    lora = LoraConfig(r=recipe.lora.r, lora_alpha=recipe.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return getattr(trl, f"{name}Trainer")(
        model=AutoModelForCausalLM.from_pretrained(base_model, dtype="bfloat16"),
        args=getattr(trl, f"{name}Config")(**arguments),
        train_dataset=Dataset.from_list([as_trl_reads(method, row) for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(base_model),
        peft_config=lora,
        **({} if teacher is None else {"teacher_model": teacher}),
    )


def recipe_of(method: str, counts: dict[str, int], base_model: Path, workspace: Workspace) -> Any:
    settings: dict[str, Any] = {f"trl.{key}": value for key, value in counts.items()}
    if method == "distill":  # Teacher and student are one model: what a step takes doesn't depend on its weights.
        settings |= {"teacher.model": str(base_model), "trl.max_completion_length": REPLY}
        settings |= {"trl.generation_kwargs": {"min_new_tokens": REPLY}}
    return load_recipe(method, settings).bound("clerk", BASE, base_model, workspace)


def fitted(
    method: str, contender: str, settings: dict[str, int], base_model: Path, folder: Path
) -> tuple[float, list[float]]:
    """When it began, and when each step ended, the beginning first."""
    rows = samples(method, settings["sentences"])
    counts = {"max_steps": settings["steps"], "per_device_train_batch_size": settings["batch"]}
    recipe = recipe_of(method, counts, base_model, Workspace(folder / "workspace").create())
    with method_of(recipe) as ours:
        import torch

        from journeyman.training.methods.trainers.skeleton import OURS
        from journeyman.training.methods.trainers.watch import Watch

        cuda = torch.cuda.is_available()
        known: Any = ours
        read = known.read_rows(rows, recipe, base_model)
        began = monotonic()
        if contender == "ours":
            trainer = known.prepare(read, recipe, base_model, folder)
        else:
            told = {**OURS, "remove_unused_columns": True, "output_dir": folder, "use_cpu": not cuda, **read.plan.trl}
            trainer = plain(method, rows, told, base_model, recipe)
        trainer.args.save_strategy = "no"
        ends = [monotonic()]
        trainer.add_callback(Watch(lambda step: ends.append(monotonic()), 0.0, trainer))
        trainer.train()
    return began, ends


def main() -> None:
    method, contender, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        if method == "grpo":
            began, ends = rewarded(contender, settings, pull_model(), Path(folder))
        else:
            began, ends = fitted(method, contender, settings, pull_model(), Path(folder))
    steps = [later - earlier for earlier, later in pairwise(ends[1:])]  # The first one warms up.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"steps": steps, "seconds": ends[-1] - began, "peak_mb": peak}))


if __name__ == "__main__":
    main()
