"""Earlier rows: what the policies before learned from, some to learn again, some to see what became of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import chain, islice, zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydantic import ValidationError

from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import Adapter, Replayed, find_adapter, read_adapter
from journeyman.runtime.adapters.datasets import dataset_files, digest_file
from journeyman.runtime.adapters.prompts import weights_of
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError
from journeyman.traces.files import regular
from journeyman.traces.tombstones import Tombstones
from journeyman.training.data.choosing.row import Row
from journeyman.training.data.samples import Sample, prompt_forms
from journeyman.training.data.tasks.heldout import HeldOut
from journeyman.training.methods.plan import HELD_OUT_MOST, HELD_OUT_SHARE, REPLAY, set_aside
from journeyman.training.methods.recipe import Recipe

MEASURED_LEAST = 8
"""Rows of a small dataset that are measured and not replayed, but for a quarter of it at most."""


class Earlier(NamedTuple):
    """Rows of datasets that were learned from before."""

    replayed: tuple[Sample, ...] = ()
    """Learned from again."""
    measured: tuple[Sample, ...] = ()
    """Their loss is measured before and after; nothing is learned from them."""
    used: tuple[Replayed, ...] = ()
    """Where those that are replayed stand."""
    share: float = 0.0
    """Of the rows learned from, that was asked for."""
    datasets: int = 0
    """How many have rows that can be used."""
    left_out: Mapping[str, int] = MappingProxyType({})
    """Earlier rows that can't be used, counted by reason."""
    against: str = BASE
    """The policy that knew them."""
    knew: Path | None = None
    """Its folder; None for the base model."""

    def __str__(self) -> str:
        """Empty where nothing was learned from before."""
        refused = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        told = [f"{self.datasets} earlier dataset{'' if self.datasets == 1 else 's'}"] if self.datasets else []
        return "; ".join([*told, *([f"left out: {refused}"] if refused else [])])


NOTHING = Earlier()


class _Numbered(NamedTuple):
    dataset: str
    """Its digest."""
    number: int
    """Of its line."""
    sample: Sample

    @property
    def source(self) -> str:
        return self.sample.source


def earlier_rows(
    samples: Sequence[Sample],
    *,
    recipe: Recipe,
    workspace: Workspace,
    base_digest: str,
    dataset_digest: str,
    policies: Sequence[str],
) -> Earlier:
    """Rows of what `policies` and those before them learned from, but for the dataset that `samples` are of.

    Left out are rows of another kind or another prompt form, of held-out tasks, of deleted runs, and prompts that the
    samples or a newer dataset have. Which ones are taken follows from the rows alone. What one run gave is either
    replayed or measured.
    """
    if "replay" not in recipe.guards:
        return NOTHING
    digests = [one for one in _learned_from(workspace.adapters, policies) if one != dataset_digest]
    if not digests:
        return NOTHING
    fitness = _Fitness(samples, workspace)
    datasets = [rows for digest in digests if (rows := fitness.rows(digest))]
    most = HELD_OUT_MOST // max(1, len(datasets)) if "worst" in recipe.guards else 0
    sides = [set_aside(rows, _to_measure(len(rows), most)) for rows in datasets]
    share = REPLAY if recipe.guard.replay is None else recipe.guard.replay
    # A row of each dataset in turn, so that a small one isn't forgotten beside a large one. What was held out of its
    # own training is measured: it comes first in the order of `set_aside`, and what is replayed is from the other end.
    turns = chain.from_iterable(zip_longest(*(reversed(rest) for rest, _ in sides)))
    wanted = round(share / (1 - share) * len(samples))
    chosen = list(islice((one for one in turns if one is not None), wanted))
    against, knew = _knew(workspace.adapters, base_digest, policies)
    return Earlier(
        replayed=tuple(one.sample for one in chosen),
        measured=tuple(one.sample for _, aside in sides for one in aside),
        used=tuple(_used(chosen)),
        share=share,
        datasets=len(datasets),
        left_out=dict(fitness.left_out.most_common()),
        against=against,
        knew=knew,
    )


def _learned_from(adapters: Path, policies: Sequence[str]) -> list[str]:
    """Digests of the datasets that the policies and those before them learned from, the newest first."""
    known, waiting = dict[str, Adapter](), [*policies]
    while waiting:
        policy = waiting.pop()
        if policy != BASE and policy not in known:
            with suppress(AdapterError):  # Of what isn't there any more nobody knows the dataset.
                known[policy] = read_adapter(find_adapter(adapters, policy))
                waiting += [known[policy].parent, known[policy].start]
    newest = sorted(known.values(), key=lambda adapter: adapter.created_ns, reverse=True)
    digests = ([one.dataset_digest, *(part.dataset_digest for part in one.replayed)] for one in newest)
    return [digest for digest in dict.fromkeys(chain.from_iterable(digests)) if digest is not None]


def _knew(adapters: Path, base_digest: str, policies: Sequence[str]) -> tuple[str, Path | None]:
    """The first of the policies that is an adapter on this base model."""
    for policy in policies:
        with suppress(AdapterError):
            weights = weights_of(adapters, policy)
            if weights != BASE and read_adapter(folder := find_adapter(adapters, weights)).base_digest == base_digest:
                return weights, folder
    return BASE, None


def _to_measure(rows: int, most: int) -> int:
    """A tenth of a dataset, or more of few rows."""
    return min(max(round(HELD_OUT_SHARE * rows), min(MEASURED_LEAST, rows // 4)), most)


def _used(chosen: Sequence[_Numbered]) -> Iterator[Replayed]:
    for digest in dict.fromkeys(one.dataset for one in chosen):
        numbers = sorted(one.number for one in chosen if one.dataset == digest)
        yield Replayed(dataset_digest=digest, numbers=tuple(numbers))


class _Fitness:
    """Which rows of earlier datasets may be learned from beside the samples."""

    def __init__(self, samples: Sequence[Sample], workspace: Workspace) -> None:
        self.left_out = Counter[str]()
        self._record = type(samples[0])
        self._agent = samples[0].agent
        self._forms = prompt_forms(samples)
        self._prompts = set(map(_prompt, samples))
        self._files = {digest_file(path): path for path in dataset_files(workspace.datasets)}
        self._deleted = Tombstones(workspace.spans).trace_ids()
        self._held_out = HeldOut.of(workspace)
        self._runs = self._held_out.runs(workspace.store)

    def rows(self, digest: str) -> list[_Numbered]:
        """Those of a dataset, by the hash of their run. Their prompts count as known from then on."""
        if digest not in self._files:
            self.left_out["a dataset that isn't in the workspace"] += 1
            return []
        rows, prompts = list[_Numbered](), set[str]()
        with regular(self._files[digest]).open("rb") as lines:
            for number, line in enumerate(lines, 1):
                sample = self._read(line)
                if isinstance(sample, str):
                    self.left_out[sample] += 1
                else:
                    rows.append(_Numbered(digest, number, sample))
                    prompts.add(_prompt(sample))
        self._prompts |= prompts
        return sorted(rows, key=lambda one: sha256(one.source.encode()).digest())

    def _read(self, line: bytes) -> Sample | str:
        """The sample, or why it can't be learned from."""
        try:
            sample = self._record.model_validate_json(line)
        except ValidationError:
            return "no row of this kind"
        row, form = Row(line), getattr(sample, "prompt_form", None)
        if sample.agent != self._agent:
            return "another agent's"
        if form is not None and self._forms and form not in self._forms:
            return "another prompt form"
        if not self._deleted.isdisjoint(row.trace_ids):
            return "of a deleted run"
        if any(trace_id in self._runs for trace_id in row.trace_ids):
            return "of a held-out task"
        if self._held_out.messages(row.asked) or self._held_out.texts(row.texts()):
            return "of a held-out task"
        return "a prompt that newer rows have" if _prompt(sample) in self._prompts else sample


def _prompt(sample: Sample) -> str:
    return sample.model_dump_json(include={"messages", "tools", "text"}, exclude_none=True)
