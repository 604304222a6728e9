"""The shelf of rollouts: rows as they were learned from, kept from round to round and put beside other datasets."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from journeyman.runtime.workspace import Workspace
from journeyman.traces.files import write_whole
from journeyman.training.data.datasets.card import Profile, Provenance, write_card
from journeyman.training.data.samples import DatasetFile, RolloutSample, dataset_file_name, sample_line, write_lines
from journeyman.training.rollouts.rows import TurnRow

LEARNED = "learned"
"""Their folder, in that of an unfinished training: a file for each round."""


def keep_rows(partial: Path, number: int, rows: Iterable[TurnRow], policy: str, prompt_form: str) -> None:
    """The rows of a round, in the place of those that an attempt at it left before."""
    (partial / LEARNED).mkdir(exist_ok=True)
    lines = (sample_line(_sample(row, policy, prompt_form)) for row in rows)
    write_whole(partial / LEARNED / f"{number}.jsonl", b"".join(lines))


def shelve_rows(workspace: Workspace, partial: Path, agent: str, rounds: Sequence[int], method: str) -> DatasetFile:
    """The rows of those rounds as a dataset of the workspace, with a card."""
    profile = Profile()
    made = Provenance.now(workspace, {"method": method, "agent": agent})

    def write_its_card(file: DatasetFile) -> None:
        write_card(profile.card(file.digest, made, turns=file.rows, refused={}), file.path)

    lines = profile.over(_lines(partial, rounds))
    return write_lines(lines, workspace.datasets, lambda digest: dataset_file_name(agent, digest), write_its_card)


def _lines(partial: Path, rounds: Sequence[int]) -> Iterator[bytes]:
    for number in rounds:
        with (partial / LEARNED / f"{number}.jsonl").open("rb") as lines:
            yield from lines


def _sample(row: TurnRow, policy: str, prompt_form: str) -> RolloutSample:
    return RolloutSample(
        agent=row.agent,
        policy=policy,
        trace_id=row.trace_id,
        span_ids=(row.span_id,),
        weight=row.weight,
        group=row.group,
        role=row.role,
        reward=row.reward,
        advantage=row.advantage,
        prompt_form=prompt_form,
        prompt_token_ids=row.prompt_ids,
        token_ids=row.completion_ids,
        logprobs=row.old_logprobs,
    )
