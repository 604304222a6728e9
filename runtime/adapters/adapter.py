"""An adapter: one agent's LoRA weights on the shared base model, or a prompt for them, and the folder that holds it."""

import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from journeyman.agents.model import BASE
from journeyman.agents.prompt import Prompt
from journeyman.runtime.serving.embedded import model_digest
from journeyman.traces.base import Record, first_mistake
from journeyman.traces.errors import AdapterError
from journeyman.traces.files import sync

RECORD = "adapter.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PROBE = "probe.json"
PROMPT = "prompt.json"
MODEL_CONFIG = "config.json"
"""Of a model of its own, whose weights are in `*.safetensors` beside it."""


class Replayed(Record):
    """Rows of an earlier dataset that were learned from again, beside those of the adapter's own."""

    dataset_digest: str
    numbers: tuple[int, ...]
    """Of their lines, from 1."""


class OldRows(Record):
    """What a training did to rows of earlier datasets that it didn't learn from."""

    rows: int
    before: float
    """Their mean loss under `against`."""
    after: float
    """The same under the new adapter."""
    against: str
    """The policy that knew them: the one to be replaced, else the one that training started from."""
    worst: float
    """The rise that the recipe allowed (`guard.worst`)."""

    @property
    def lost(self) -> bool:
        return self.after - self.before > self.worst


class Drift(Record):
    """How far an adapter speaks from its base model where neither was asked to change: on neutral prompts."""

    kl: float
    """KL(adapter ‖ base) in nats, the mean over the tokens of the base model's own greedy replies."""
    agreement: float
    """Share of those tokens (0..1) that the adapter finds the likeliest, too."""
    tokens: int


class Adapter(Record):
    """What an adapter is and where it came from; `adapter.json` in its folder."""

    version: int = 1
    """Of this record's form, not of the adapter."""
    agent: str
    number: int = Field(ge=1)
    base_digest: str
    """`model_digest` of the base model that it was trained on."""
    digest: str
    """`digest_files` of its folder."""
    parent: str = BASE
    """The policy it was trained to replace."""
    start: str = BASE
    """The policy whose weights its training started from; those of a prompt candidate answer for it."""
    start_digest: str | None = None
    """Of the files of `start`; None for the base model."""
    method: str
    """How it was trained, e.g. `sft`; `prompt` for a prompt candidate, which has no weights of its own."""
    dataset_digest: str
    tasks_digest: str | None = None
    """Of the tasks that it was rolled out on, with crew and scorer, where the dataset's rows came of that."""
    rows: int
    """Samples in the dataset."""
    replayed: tuple[Replayed, ...] = ()
    """What it learned from besides, against forgetting."""
    prompt_form: str | None = None
    """Digest of the form that their prompts are in; None where the dataset doesn't say."""
    recipe_digest: str
    rank: int
    """Of the LoRA weights; 0 where there are none."""
    steps: int | None = None
    """Optimiser steps that it was trained for; like the next one, None in records from before it was written."""
    epochs: float | None = None
    """How often it saw each row."""
    eval_loss: float | None = None
    """Loss of the held-out rows; None where none were held out."""
    old: OldRows | None = None
    """None where nothing was learned before."""
    drift: Drift | None = None
    """None in records from before it was measured, and where there is no base model to compare with."""
    metrics: Mapping[str, float] = Field(default_factory=dict)
    """What else its method said of the end of the training, such as `rewards/margins`."""
    train_seconds: float
    created_ns: int

    @property
    def policy(self) -> str:
        """`worker@8`: the adapter, the folder, the server's LoRA name and `gen_ai.request.model`, all in one."""
        return f"{self.agent}@{self.number}"

    @property
    def weights(self) -> str:
        """The policy whose weights answer for it: its own, but for a prompt candidate."""
        return self.start if self.is_prompt else self.policy

    @property
    def is_prompt(self) -> bool:
        return self.method == "prompt"

    @property
    def is_model(self) -> bool:
        """Whether all weights are its own: then it is served as a model of its own, not by a LoRA server."""
        return self.method == "full"


class Probe(Record):
    """What a server must compute if it serves this adapter: logprobs over a fixed token sequence."""

    token_ids: tuple[int, ...] = Field(min_length=2)
    adapter_logprobs: tuple[float, ...]
    """Natural-log probability of token i + 1 after tokens 0..i, from a PEFT forward: one fewer than tokens."""
    base_logprobs: tuple[float, ...]
    """The same without the adapter."""

    @model_validator(mode="after")
    def _one_fewer_than_tokens(self) -> "Probe":
        wanted = len(self.token_ids) - 1
        if not len(self.adapter_logprobs) == len(self.base_logprobs) == wanted:
            raise ValueError(f"{len(self.token_ids)} tokens need {wanted} logprobs of each kind")
        return self


def load_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`, once its files have been found whole, unaltered and of a form that vLLM serves."""
    adapter = read_adapter(folder)
    if adapter.is_prompt:
        _check_prompt(folder, adapter)
    elif adapter.is_model:
        _check_model(folder)
    else:
        _check_lora(folder, adapter)
    check_unaltered(folder, adapter)
    return adapter


def check_unaltered(folder: Path, adapter: Adapter) -> None:
    """Raises `AdapterError` where its files aren't those that the record was written with."""
    if (digest := digest_files(folder)) != adapter.digest:
        raise AdapterError(
            f"{folder}: its files have digest {digest[:12]}, not {adapter.digest[:12]}: altered since training"
        )


def read_adapter(folder: Path) -> Adapter:
    """The adapter's own account of itself; its weights aren't read, and may be damaged."""
    adapter = _read(Adapter, folder / RECORD)
    if adapter.policy != folder.name:
        raise AdapterError(
            f"{folder}: holds {adapter.policy}, not {folder.name}: a folder keeps the name it was made with"
        )
    return adapter


def read_probe(folder: Path) -> Probe:
    return _read(Probe, folder / PROBE)


def read_prompt(folder: Path) -> Prompt:
    return _read(Prompt, folder / PROMPT)


def write_prompt(folder: Path, prompt: Prompt) -> None:
    (folder / PROMPT).write_text(prompt.model_dump_json(indent=2) + "\n", encoding="utf-8")


def write_adapter(folder: Path, adapter: Adapter, probe: Probe | None) -> None:
    """Completes a folder that holds PEFT's two files, a model or a prompt, with the record and the probe (None: it has
    no weights to probe), all durable on return."""
    (folder / RECORD).write_text(adapter.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if probe is not None:
        (folder / PROBE).write_text(probe.model_dump_json() + "\n", encoding="utf-8")
    for path in folder.iterdir():
        sync(path)


def digest_files(folder: Path) -> str:
    """SHA-256 over the LoRA configuration and the weights, or over the prompt, in that order; of a model its own."""
    digest = sha256()
    prompted, trained, whole = ((folder / name).exists() for name in (PROMPT, WEIGHTS, MODEL_CONFIG))
    if whole:
        digest.update(model_digest(folder).encode())
    for name in (*((CONFIG, WEIGHTS) if trained or not (prompted or whole) else ()), *((PROMPT,) if prompted else ())):
        with _existing(folder / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def check_fits(adapter: Adapter, *, base_digest: str | None, max_rank: int) -> None:
    """Raises `AdapterError` where a server of that base (None: unknown) and LoRA rank can't serve the adapter."""
    if base_digest is not None and adapter.base_digest != base_digest:
        raise AdapterError(
            f"{adapter.policy} was trained on base model {adapter.base_digest[:12]}, "
            f"the server has {base_digest[:12]}: start the server with the adapter's base, or train on that one"
        )
    if adapter.rank > max_rank:
        raise AdapterError(
            f"{adapter.policy} has rank {adapter.rank}, the server takes at most {max_rank}: "
            "raise server.max_lora_rank and start it again"
        )


def split_policy(policy: str) -> tuple[str, int]:
    """`worker@8` as agent and number; raises `AdapterError` for any other form."""
    if found := re.fullmatch(r"([^\W\d]\w*)@([1-9]\d*)", policy):
        return found[1], int(found[2])
    raise AdapterError(f"{policy!r} names no adapter: write agent@number, as in worker@8")


def find_adapter(adapters: Path, policy: str) -> Path:
    """The folder of that adapter under the workspace's `adapters`."""
    split_policy(policy)
    folder = adapters / policy
    if not folder.is_dir():
        have = ", ".join(path.name for path in adapter_folders(adapters)) or "none yet"
        raise AdapterError(f"there is no adapter {policy} in {adapters}; have: {have}")
    return folder


def adapter_digests(adapters: Path, policies: Iterable[str]) -> dict[str, str]:
    """By policy, the recorded digest of each of `policies` that is an adapter; weights are hashed when they are loaded.

    Raises `AdapterError` where one isn't there.
    """
    return {policy: read_adapter(find_adapter(adapters, policy)).digest for policy in policies if "@" in policy}


def prompt_forms(adapters: Path, policies: Iterable[str]) -> dict[str, str]:
    """By policy, the prompt form that each of `policies` was trained on, where it is an adapter that says so."""
    forms: dict[str, str] = {}
    for policy in policies:
        if "@" in policy:
            with suppress(AdapterError):  # What can't be read is told when it is loaded.
                forms[policy] = read_adapter(find_adapter(adapters, policy)).prompt_form or ""
    return {policy: form for policy, form in forms.items() if form}


def adapter_folders(adapters: Path) -> list[Path]:
    """Folders of finished adapters, by agent and number; what is being trained has another name."""
    return [folder for _, _, folder in sorted(_numbered(adapters))]


def next_number(adapters: Path, agent: str) -> int:
    return 1 + max((number for name, number, _ in _numbered(adapters) if name == agent), default=0)


def _numbered(adapters: Path) -> Iterator[tuple[str, int, Path]]:
    for folder in adapters.glob("*@*"):
        try:
            yield *split_policy(folder.name), folder
        except AdapterError:
            continue


def _check_prompt(folder: Path, adapter: Adapter) -> None:
    """Its prompt is on the weights that the record names, which are there as they were."""
    prompt = read_prompt(folder)
    if (prompt.weights, prompt.weights_digest) != (adapter.start, adapter.start_digest):
        raise AdapterError(
            f"{folder}: {PROMPT} is on the weights of {prompt.weights}, {RECORD} on those of {adapter.start}: "
            "the files do not belong together"
        )
    if prompt.weights == BASE:
        return
    weights = load_adapter(find_adapter(folder.parent, prompt.weights))
    if weights.digest != prompt.weights_digest:
        raise AdapterError(
            f"{folder}: its weights {prompt.weights} have digest {weights.digest[:12]}, not "
            f"{(prompt.weights_digest or '')[:12]}: restore the adapter that it was made on"
        )


def _check_lora(folder: Path, adapter: Adapter) -> None:
    read_probe(folder)
    config = _read_json(folder / CONFIG)
    _check_servable(folder, config, _tensor_names(folder / WEIGHTS))
    if (rank := _rank(config)) != adapter.rank:
        raise AdapterError(
            f"{folder}: {CONFIG} says rank {rank}, {RECORD} says {adapter.rank}: the files do not belong together"
        )


def _check_model(folder: Path) -> None:
    read_probe(folder)
    _read_json(folder / MODEL_CONFIG)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise AdapterError(f"{folder}: holds no *.safetensors: copy or train it again")
    for path in weights:
        _tensor_names(path)


def _check_servable(folder: Path, config: dict[str, Any], tensors: list[str]) -> None:
    """vLLM serves plain LoRA on linear layers; some of the rest it refuses late, some it drops without a word."""
    targets = config.get("target_modules") or ()
    refused = {
        "DoRA": config.get("use_dora"),
        "trained biases": config.get("lora_bias") or config.get("bias", "none") != "none",
        "modules_to_save": config.get("modules_to_save"),
        "LoRA on lm_head": "lm_head" in targets or any("lm_head" in name for name in tensors),
        "tensors other than lora_A and lora_B": not all(re.search(r"\.lora_[AB]\.weight$", name) for name in tensors),
    }
    if kinds := [kind for kind, present in refused.items() if present]:
        raise AdapterError(f"{folder}: vLLM can't serve an adapter with {kinds[0]}: train plain LoRA on linear layers")
    if not tensors:
        raise AdapterError(f"{folder / WEIGHTS}: holds no weights: train the adapter again")


def _rank(config: dict[str, Any]) -> int:
    patterns: dict[str, int] = config.get("rank_pattern") or {}
    return max([int(config.get("r") or 0), *patterns.values()])


def _tensor_names(path: Path) -> list[str]:
    """Names in a safetensors file (8 bytes of header length, a JSON header, the tensors), whose length must add up."""
    size = _existing(path).stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise AdapterError(f"{path}: truncated inside its header ({size} bytes): copy or train it again")
        try:
            tensors = json.loads(file.read(length))
            tensors.pop("__metadata__", None)
            end = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError):
            raise AdapterError(f"{path}: not a safetensors file: its header can't be read") from None
    if size != end:
        raise AdapterError(f"{path}: has {size} bytes, its header says {end}: copy or train it again")
    return list(tensors)


R = TypeVar("R", Adapter, Probe, Prompt)


def _read(record: type[R], path: Path) -> R:
    try:
        return record.model_validate_json(_existing(path).read_bytes())
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise AdapterError(f"{path}: not a {record.__name__.lower()} record: {first_mistake(error, record)}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(_existing(path).read_bytes())
    except ValueError as error:
        raise AdapterError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise AdapterError(f"{path}: must be a JSON object, as training wrote it")
    return values


def _existing(path: Path) -> Path:
    if not path.is_file():
        missing = path if path.parent.is_dir() else path.parent
        kind = "file" if missing is path else "folder"
        raise AdapterError(f"{missing}: there is no such {kind}; `journeyman adapters list` shows what there is")
    return path
