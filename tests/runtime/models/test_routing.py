"""Routing: who is asked depends on the task, and every decision says why."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from journeyman.agents.agent import Agent
from journeyman.runtime.models.routing import Classifier, Router, RoutingConfig, Rule, features, read_classifier
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task

WORKER = Agent(name="worker", instructions="work")
TASK = Task(id="t", prompt="p", family="moons")
CHOOSER = f"{__name__}:{{}}"


def by_rules(*rules: dict[str, Any]) -> Router:
    return Router(RoutingConfig(large="big", rules=tuple(Rule.model_validate(rule) for rule in rules)))


def prefers_large(agent: Agent, goal: str, task: Task) -> str | None:
    return None if goal == "skip" else "large"


def breaks(agent: Agent, goal: str, task: Task) -> str:
    raise LookupError("no opinion")


def medium(agent: Agent, goal: str, task: Task) -> str:
    return "medium"


@pytest.mark.parametrize(
    ("rule", "goal", "fits"),
    [
        ({}, "anything", True),
        ({"goal": r"\bcompare\b"}, "Compare the two", True),
        ({"goal": r"\bcompare\b"}, "comparison", False),
        ({"min_words": 3}, "two words", False),
        ({"min_words": 2, "max_words": 2}, "two words", True),
        ({"max_words": 1}, "two words", False),
        ({"agent": "other"}, "x", False),
        ({"agent": "worker", "family": "moons", "goal": "x"}, "x", True),
        ({"family": "films"}, "x", False),
    ],
)
def test_a_rule_fits_where_all_that_it_names_does(rule: dict[str, Any], goal: str, fits: bool) -> None:
    assert (by_rules({"to": "large", **rule}).choose(WORKER, goal, TASK) is not None) is fits


def test_the_first_rule_that_fits_counts_and_is_named() -> None:
    router = by_rules({"to": "large", "goal": "never"}, {"to": "small", "max_words": 3}, {"to": "large"})
    short, long = router.choose(WORKER, "count moons", TASK), router.choose(WORKER, "count all of the moons", TASK)
    assert short is not None and (short.size, short.policy, short.reason) == ("small", None, "rule 2")
    assert long is not None and (long.size, long.policy, long.reason) == ("large", "big", "rule 3")


def test_only_agents_that_are_named_are_routed_and_none_whose_policy_the_crew_sets() -> None:
    router = Router(RoutingConfig(large="big", agents=("worker",), rules=(Rule(to="large"),)))
    assert router.choose(WORKER, "x", TASK) is not None
    assert router.choose(Agent(name="other", instructions="work"), "x", TASK) is None
    assert router.choose(WORKER.model_copy(update={"model": "base"}), "x", TASK) is None


def test_a_function_is_asked_where_no_rule_fits() -> None:
    config = RoutingConfig(large="big", small="tiny", rules=(Rule(to="small", max_words=1, goal="easy"),))
    router = Router(config.model_copy(update={"function": CHOOSER.format("prefers_large")}))
    said = [router.choose(WORKER, goal, TASK) for goal in ("easy", "hard", "skip")]
    assert [route and (route.policy, route.reason) for route in said] == [
        ("tiny", "rule 1"),
        ("big", f"{__name__}:prefers_large"),
        None,
    ]


@pytest.mark.parametrize(("function", "complaint"), [("breaks", "LookupError: no opinion"), ("medium", "'medium'")])
def test_a_function_that_fails_leaves_the_work_to_the_small_model_and_says_so(function: str, complaint: str) -> None:
    router = Router(RoutingConfig(large="big", function=CHOOSER.format(function)))
    route = router.choose(WORKER, "x", TASK)
    assert route is not None and route.size == "small" and complaint in route.reason


@pytest.mark.parametrize("function", ["nonsense", "json:nothing", "no.such.module:f", "math:pi"])
def test_a_function_that_is_none_is_a_config_error(function: str) -> None:
    with pytest.raises(ConfigError, match=r"\[routing\] function"):
        Router(RoutingConfig(large="big", function=function))


@pytest.mark.parametrize("table", [{"large": "big"}, {"large": "big", "rules": [{"to": "large", "goal": "("}]}])
def test_a_table_that_cannot_choose_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RoutingConfig.model_validate(table)


def test_a_classifier_chooses_by_its_score(tmp_path: Path) -> None:
    (hard,) = set(features("worker", "hard", "moons")) - set(features("worker", "easy", "moons"))
    classifier = Classifier(intercept=2.0, weights={hard: -4.0}, rows=80, held_out=20, accuracy=0.9, majority=0.6)
    path = tmp_path / "router.json"
    path.write_text(classifier.model_dump_json())
    router = Router.open(RoutingConfig(large="big", classifier=True), path)
    easy, difficult = router.choose(WORKER, "easy", TASK), router.choose(WORKER, "hard", TASK)
    assert easy is not None and easy.size == "small" and easy.score == pytest.approx(0.881, abs=1e-3)
    assert difficult is not None and difficult.policy == "big" and difficult.score == pytest.approx(0.119, abs=1e-3)
    strict = Router.open(RoutingConfig(large="big", classifier=True, threshold=0.9), path)
    assert (route := strict.choose(WORKER, "easy", TASK)) is not None and route.size == "large"


def test_a_classifier_that_was_never_trained_or_is_damaged_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="journeyman train-router"):
        Router.open(RoutingConfig(large="big", classifier=True), tmp_path / "router.json")
    (tmp_path / "router.json").write_text("{}")
    with pytest.raises(ConfigError, match="isn't a classifier"):
        read_classifier(tmp_path / "router.json")
