"""A prompt's job: what a search is for, what came of it, and the candidate's folder."""

import shutil
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from journeyman.agents.prompt import Prompt
from journeyman.runtime.adapters.adapter import (
    Adapter,
    adapter_folders,
    digest_files,
    load_adapter,
    split_policy,
    write_adapter,
    write_prompt,
)
from journeyman.traces.base import Record
from journeyman.traces.errors import AdapterError
from journeyman.traces.files import write_whole

SEARCH = "search.json"
"""In a candidate's folder: the job, and what came of the search."""


class PromptJob(Record):
    """What is looked for with what: two searches of the same job find the same prompt."""

    agent: str
    parent: str
    """The policy that the candidate would replace."""
    start: str
    """The policy whose weights answer."""
    start_digest: str | None
    base_digest: str
    crew_digest: str
    """Of what makes it another crew, such as its file."""
    tasks_digest: str
    scorer: str
    recipe_digest: str


class Search(Record):
    """How a candidate was found; `search.json` in its folder."""

    version: int = 1
    job: PromptJob
    metric_calls: int
    """Scored runs, those included that were made before."""
    tried: int
    """Prompts that were scored on all tasks that prompts are chosen on."""
    tasks: int
    """So many tasks."""
    first_score: float
    """On these, of the prompt that the search began with."""
    score: float
    """Of the candidate."""


class Prompted(Record):
    """What came of a search."""

    adapter: Adapter | None
    """None where no prompt did better than the one that the search began with."""
    search: Search
    offered: int
    """Recorded pieces of work that examples were chosen from."""


def known_candidate(adapters: Path, job: PromptJob) -> Prompted | None:
    """The candidate of the same job, where there is one."""
    for folder in adapter_folders(adapters):
        if split_policy(folder.name)[0] == job.agent and (folder / SEARCH).exists():
            with suppress(AdapterError, ValidationError):  # A damaged one is no reason not to look for a whole one.
                search = Search.model_validate_json((folder / SEARCH).read_bytes())
                if search.job == job:
                    return Prompted(adapter=load_adapter(folder), search=search, offered=0)
    return None


def write_candidate(folder: Path, adapter: Adapter, prompt: Prompt, search: Search) -> Adapter:
    """Fills the folder of a candidate; the adapter comes back with the digest of its files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_prompt(folder, prompt)
    write_whole(folder / SEARCH, search.model_dump_json(indent=2) + "\n")
    adapter = adapter.model_copy(update={"digest": digest_files(folder)})
    write_adapter(folder, adapter, None)
    return adapter
