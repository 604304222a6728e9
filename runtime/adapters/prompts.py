"""Prompts in service: what prompt candidates say in place of a crew's file, and whose weights answer for them."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from journeyman.agents.prompt import Prompt
from journeyman.runtime.adapters.adapter import (
    PROMPT,
    adapter_folders,
    check_unaltered,
    find_adapter,
    read_adapter,
    read_prompt,
    split_policy,
)
from journeyman.traces.errors import AdapterError


def read_prompts(adapters: Path, policies: Iterable[str]) -> dict[str, Prompt]:
    """By policy, what each of `policies` says in place of the crew's file, where it is a prompt candidate.

    Raises `AdapterError` for a prompt that was altered: nothing proves one as the load of weights does.
    """
    folders = {policy: adapters / policy for policy in policies if "@" in policy}
    prompts = {policy: read_prompt(folder) for policy, folder in folders.items() if (folder / PROMPT).exists()}
    for policy, prompt in prompts.items():
        if prompt.weights != policy:
            check_unaltered(folders[policy], read_adapter(folders[policy]))
    return prompts


def weights_of(adapters: Path, policy: str) -> str:
    """The policy whose weights answer for `policy`; one that can't be read stands for itself, until it is loaded."""
    try:
        return read_adapter(find_adapter(adapters, policy)).weights if "@" in policy else policy
    except AdapterError:
        return policy


def prompt_in_form(adapters: Path, agent: str, form: str) -> Prompt | None:
    """What the agent's newest prompt candidate says whose prompt form has that digest; None where there is none."""
    for folder in reversed(adapter_folders(adapters)):
        if split_policy(folder.name)[0] == agent and (folder / PROMPT).exists():
            with suppress(AdapterError):
                if read_adapter(folder).prompt_form == form:
                    return read_prompt(folder)
    return None
