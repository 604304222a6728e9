"""Crews from TOML: what is right is read, what is wrong is named."""

from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew, load_crew
from journeyman.traces.errors import ConfigError

GOOD = """
name = "counting"

[orchestrator]
limits = { tokens = 300 }

[workers.sums]
description = "Does arithmetic."
tools = ["calculator"]

[tools.calculator]
use = "calculator"
"""


def crew(folder: Path, text: str) -> Crew:
    path = folder / "crew.toml"
    path.write_text(text)
    return load_crew(path)


def test_a_crew_is_read_with_its_agents_tools_and_default_instructions(tmp_path: Path) -> None:
    read = crew(tmp_path, GOOD)
    assert read.orchestrator is not None
    assert read.orchestrator.limits.tokens == 300
    assert [worker.name for worker in read.workers] == ["sums"]
    assert "Reply with JSON only" in read.workers[0].instructions
    assert list(read.tools) == ["calculator"]


def test_a_tool_may_be_any_function_that_can_be_imported(tmp_path: Path) -> None:
    text = GOOD.replace('use = "calculator"', 'use = "journeyman.tools.calculator:calculator"')
    assert list(crew(tmp_path, text).tools) == ["calculator"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "counting"', 'name = "counting"\nnmae = 1', "unknown key 'nmae'"),
        ("tokens = 300", "tokns = 300", "unknown key 'orchestrator.limits.tokns'"),
        ('tools = ["calculator"]', 'tools = ["calculater"]', "unknown tool 'calculater'; the crew has: calculator"),
        ('use = "calculator"', 'use = "abacus"', "unknown tool 'abacus'; have calculator, retrieve"),
        ('use = "calculator"', 'use = "no.such:thing"', "cannot be imported"),
        ('use = "calculator"', "", "needs `use`"),
        ('name = "counting"', "", "'name' is missing"),
        ('name = "counting"', "name = ", "not valid TOML"),
        ("[workers.sums]", "[workers.orchestrator]", "two agents of the name 'orchestrator'"),
        ("tokens = 300", "tokens = 0", "greater than or equal to 1"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file_and_what_is_wrong(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as raised:
        crew(tmp_path, GOOD.replace(old, new))
    assert said in str(raised.value)
    assert "crew.toml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nobody\.toml: there is no such file"):
        load_crew(tmp_path / "nobody.toml")


def test_an_unknown_worker_is_named_with_those_there_are() -> None:
    crew = Crew(name="c", orchestrator=None, workers=(Agent(name="lookup", instructions="x"),))
    with pytest.raises(ConfigError, match="unknown worker 'pilot'; the crew has: lookup"):
        crew.worker("pilot")


def test_a_crew_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="has no worker"):
        Crew(name="c", orchestrator=None, workers=())
