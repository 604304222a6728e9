"""Assessments: what people, scorers and judges say of a trace on an MLflow server, as labels."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from typing import Any, Self

import httpx
from pydantic import ValidationError

from journeyman.traces.errors import ConfigError, DeliveryError
from journeyman.traces.exchange.endpoint import EXPERIMENT, open_endpoint
from journeyman.traces.exchange.mlflow_form import EDIT, EXPECTED
from journeyman.traces.labels import Label, unsaid

TIMEOUT_S = 30.0

PAGE = 200
"""Traces asked for at once."""

SOURCE_TYPES = {"HUMAN": "human", "LLM_JUDGE": "llm_judge", "AI_JUDGE": "llm_judge"}
"""MLflow's word for a kind of source, and ours; every other one is code."""

_TRACES = "/api/3.0/mlflow/traces"


class Assessments:
    """The assessments on an MLflow server. Use it as a context manager; raises `DeliveryError` where it is down."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        address = httpx.URL(url)
        if address.scheme not in ("http", "https"):
            raise ConfigError(
                "MLflow is asked over HTTP: give http://host:5000 "
                f"(`mlflow server --backend-store-uri` serves a store of {address.scheme or 'files'})"
            )
        # Without user and password: it is for messages.
        self._shown = f"MLflow at {address.scheme}://{address.netloc.decode()}"
        self._client = httpx.Client(base_url=address, headers=dict(headers or {}), timeout=TIMEOUT_S)

    def labels(self) -> Iterator[Label]:
        """Every assessment in the experiment `journeyman`, as a label."""
        experiment = self._experiment()
        if experiment is None:
            return
        where = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
        asked: dict[str, Any] = {"locations": [where], "max_results": PAGE}
        while True:
            found = self._request("POST", f"{_TRACES}/search", json=asked) or {}
            for trace in found.get("traces", ()):
                yield from read_labels(trace)
            if not found.get("next_page_token"):
                return
            asked["page_token"] = found["next_page_token"]

    def labels_of(self, trace_id: str) -> list[Label] | None:
        """Those of one trace, None where the server does not have it."""
        found = self._request("GET", f"{_TRACES}/tr-{trace_id}")
        return None if found is None else list(read_labels(found["trace"]["trace_info"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _experiment(self) -> str | None:
        asked = f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}"
        found = self._request("GET", asked)
        return None if found is None else str(found["experiment"]["experiment_id"])

    def _request(self, method: str, path: str, **parts: Any) -> dict[str, Any] | None:
        """What the server says, None where it has no such thing."""
        try:
            reply = self._client.request(method, path, **parts)
            if reply.status_code == httpx.codes.NOT_FOUND:
                return None
            reply.raise_for_status()
            said: dict[str, Any] = reply.json()
        except httpx.HTTPStatusError as error:
            what = f"answered {error.response.status_code} to {path}"
            raise DeliveryError(f"{self._shown} {what}", retryable=False) from None
        except httpx.HTTPError as error:
            raise DeliveryError(f"{self._shown} does not answer: {type(error).__name__}", retryable=True) from None
        except ValueError:
            raise DeliveryError(f"{self._shown} answers no JSON: is an MLflow server there?", retryable=False) from None
        return said


def push_labels(labels: Iterable[Label], url: str, headers: Mapping[str, str] | None = None) -> int:
    """Adds to the server's traces what it does not have of these labels, and says how many there were.

    Labels of traces that it does not have are left out. Raises `DeliveryError`.
    """
    by_trace: dict[str, list[Label]] = {}
    for label in labels:
        by_trace.setdefault(label.trace_id, []).append(label)
    pushed = 0
    with Assessments(url, headers) as assessments, closing(open_endpoint(url, "mlflow", headers)) as endpoint:
        for trace_id, said in by_trace.items():
            known = assessments.labels_of(trace_id)
            for label in [] if known is None else unsaid(said, known):
                endpoint.send_label(label, TIMEOUT_S)
                pushed += 1
    return pushed


def read_labels(trace: Mapping[str, Any]) -> Iterator[Label]:
    """The assessments of a trace in MLflow's REST form, without those that are overridden, failed, or name an issue."""
    for assessment in trace.get("assessments", ()):
        if assessment.get("valid", True) and (label := _label(trace["trace_id"], assessment)) is not None:
            yield label


def _label(trace_id: str, assessment: Mapping[str, Any]) -> Label | None:
    stated = assessment.get("feedback") or assessment.get("expectation") or {}
    value = stated.get("value")
    if "serialized_value" in stated:
        value = stated["serialized_value"].get("value")
    if value is None or stated.get("error"):
        return None
    name, source = assessment["assessment_name"], assessment.get("source", {})
    try:
        return Label(
            trace_id=trace_id.removeprefix("tr-"),
            span_id=assessment.get("span_id") or None,
            name=EDIT if "expectation" in assessment and name == EXPECTED else name,
            source=source.get("source_id") or "default",
            source_type=SOURCE_TYPES.get(source.get("source_type"), "code"),
            value=value if isinstance(value, bool | int | float | str) else json.dumps(value, ensure_ascii=False),
            comment=assessment.get("rationale") or None,
            at_ns=_time_ns(assessment.get("last_update_time") or assessment["create_time"]),
        )
    except (ValidationError, KeyError, ValueError):
        return None


def _time_ns(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000) * 10**6
