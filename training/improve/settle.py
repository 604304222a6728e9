"""Settling: what follows from a verdict at once."""

from journeyman.runtime.adapters.adapter import find_adapter, load_adapter, split_policy
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.live import take_out
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.training.evaluation.gate import Verdict


def settle(workspace: Workspace, server: ServerState, verdict: Verdict) -> None:
    """A candidate that won stays loaded, ready to be promoted; one that did not leaves the server.

    One that was rejected is journalled as such, for good: gating it until it passes would be promotion by luck.
    """
    if verdict.decision == "promote":
        return
    agent, _ = split_policy(verdict.candidate)
    journal = Journal(workspace.journal)
    if verdict.decision == "reject" and journal.states().get(verdict.candidate) != "rejected":
        digest = load_adapter(find_adapter(workspace.adapters, verdict.candidate)).digest
        reason = "; ".join(verdict.reasons)
        journal.append(agent, "reject", verdict.candidate, expected=verdict.incumbent, digest=digest, reason=reason)
    take_out(workspace, server, verdict.candidate)
