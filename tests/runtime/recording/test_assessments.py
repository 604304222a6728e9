"""Labels and MLflow's assessments: each side gets the last word of every source, once."""

from typing import Any

import pytest

from journeyman.runtime.recording.assessments import Assessments, read_labels
from journeyman.traces.errors import ConfigError, DeliveryError
from journeyman.traces.exchange.mlflow_form import assessment
from journeyman.traces.labels import Label

TRACE = "a" * 32
MS = 10**6


def label(value: bool | float | str, *, at_ms: int = 0, **fields: Any) -> Label:
    return Label(
        **{"trace_id": TRACE, "name": "score", "source": "exact", "value": value, "at_ns": at_ms * MS} | fields
    )


def back(said: Label) -> list[Label]:
    """What MLflow tells of an assessment that it was told."""
    return list(read_labels({"trace_id": f"tr-{TRACE}", "assessments": [assessment(said)]}))


@pytest.mark.parametrize(
    "said",
    [
        label(True, name="thumbs", source="ann", source_type="human"),
        label(0.25, comment="half of it", at_ms=1_759_996_800_123),
        label("poor", span_id="0000000000000002"),
        label("The Daugava.", name="edit", source="ann", source_type="human"),
        label("Riga", name="expected_facts", source="ann", source_type="human"),
        label(1.0, source="gpt", source_type="llm_judge"),
    ],
)
def test_a_label_comes_back_from_mlflow_as_it_was(said: Label) -> None:
    assert back(said) == [said]


def test_a_better_reply_is_what_mlflow_calls_an_expected_response() -> None:
    form = assessment(label("The Daugava.", name="edit"))
    assert form["assessment_name"] == "expected_response"
    assert form["expectation"] == {"value": "The Daugava."} and "feedback" not in form


@pytest.mark.parametrize(
    "form",
    [
        {"feedback": {"value": 1.0}, "valid": False},
        {"feedback": {"error": {"error_code": "TIMEOUT"}}},
        {"feedback": {"value": None}},
        {"issue": {"issue_name": "slow"}},
        {"feedback": {"value": 1.0}, "last_update_time": "yesterday"},
    ],
)
def test_what_states_nothing_is_left_out(form: dict[str, Any]) -> None:
    known = {"assessment_name": "score", "source": {"source_type": "HUMAN"}, "create_time": "2025-10-09T08:00:00Z"}
    assert list(read_labels({"trace_id": f"tr-{TRACE}", "assessments": [known | form]})) == []


def test_a_value_that_is_no_value_of_a_label_is_its_json() -> None:
    form = assessment(label("x")) | {"feedback": {"value": {"tone": "dry"}}}
    (only,) = read_labels({"trace_id": TRACE, "assessments": [form]})
    assert only.value == '{"tone": "dry"}'


def test_an_address_of_another_kind_is_a_usage_error_without_its_password() -> None:
    with pytest.raises(ConfigError, match="asked over HTTP") as refused:
        Assessments("mysql://me:secret@host/mlflow")
    assert "secret" not in str(refused.value)


def test_a_server_that_is_down_is_one_line_without_its_password(free_port: int) -> None:
    with Assessments(f"http://me:secret@127.0.0.1:{free_port}") as down, pytest.raises(DeliveryError) as refused:
        list(down.labels())
    assert str(refused.value) == f"MLflow at http://127.0.0.1:{free_port} does not answer: ConnectError"
