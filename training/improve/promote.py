"""Promotion: a candidate whose verdict allows it goes into service, and MLflow is told; a rollback takes it out."""

from journeyman.runtime.adapters import live
from journeyman.runtime.adapters.adapter import find_adapter, split_policy
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.live import Promotion
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError
from journeyman.training.evaluation.gate import Verdict, read_verdict
from journeyman.training.improve.mirror import mirror


def promote(
    workspace: Workspace,
    policy: str,
    *,
    server: ServerState | None,
    reason: str | None = None,
    force: bool = False,
) -> Promotion:
    """Puts an adapter in service: proved on the live server first, then committed by its journal entry.

    Raises `AdapterError` where its verdict is missing, isn't "promote", or is against another policy than the one in
    service; `force` promotes it all the same. `reason` is for the journal; by default the verdict's.
    """
    verdict = read_verdict(find_adapter(workspace.adapters, policy))
    doubt = _doubt(verdict, Journal(workspace.journal).in_service(split_policy(policy)[0]))
    if doubt and not force:
        raise AdapterError(f"{policy} is not promoted: {doubt}; run `journeyman gate {policy}`, or say --force")
    why = reason or (f"forced: {doubt}" if doubt else "; ".join(verdict.reasons) if verdict else "")
    promotion = live.promote(workspace, policy, reason=why, server=server)
    mirror(workspace, promotion.entry.agent)
    return promotion


def rollback(workspace: Workspace, agent: str, *, reason: str, server: ServerState | None) -> Promotion:
    """Puts the policy back in service that the present one replaced."""
    promotion = live.rollback(workspace, agent, reason=reason, server=server)
    mirror(workspace, agent)
    return promotion


def _doubt(verdict: Verdict | None, in_service: str) -> str | None:
    """Why a verdict does not allow the promotion; None where it does."""
    if verdict is None:
        return "it has no verdict"
    if verdict.decision != "promote":
        return f"its verdict is {verdict.decision}"
    if verdict.incumbent != in_service:
        return f"its verdict is against {verdict.incumbent}, and {in_service} is in service now"
    return None
