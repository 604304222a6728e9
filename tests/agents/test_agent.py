"""Crews from TOML: what is right is read, what is wrong is named."""

import re
import sqlite3
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.crew_file import load_crew
from journeyman.tools.calculator import calculator
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


def test_a_crew_says_how_calls_are_written_what_is_verified_and_how_often_it_replans(tmp_path: Path) -> None:
    read = crew(
        tmp_path,
        'verify = ["number"]'
        + GOOD.replace("limits =", "replans = 3\njudge = true\nlimits =").replace(
            "tools = [", 'parallel_calls = 4\ntool_calls = "native"\nverify = ["integer", "operator:eq"]\ntools = ['
        ),
    )
    assert read.orchestrator is not None
    assert (read.verify, read.orchestrator.replans, read.orchestrator.judge) == (("number",), 3, True)
    (worker,) = read.workers
    assert (worker.parallel_calls, worker.tool_calls, worker.verify) == (4, "native", ("integer", "operator:eq"))
    assert "JSON" not in worker.instructions
    several = crew(tmp_path, GOOD.replace("tools = [", "parallel_calls = 4\ntools = ["))
    assert "a list of calls" in several.workers[0].instructions


@pytest.mark.parametrize(
    "use",
    [
        "calculator",
        "ask",
        'files"\npath = "."\n#"',
        'sql"\npath = "shop.db"\n#"',
        "journeyman.tools.calculator:calculator",
    ],
)
def test_a_table_may_describe_its_tools_and_leave_them_out_of_prompts(tmp_path: Path, use: str) -> None:
    sqlite3.connect(tmp_path / "shop.db").execute("CREATE TABLE sale (x INT)").connection.close()

    def described(text: str) -> list[str]:
        assert calculator.told.endswith("round, sqrt.")
        table = GOOD.replace('use = "calculator"', f'use = "{use}"\ndescription = "{text}"')
        tools = crew(tmp_path, table.replace('tools = ["calculator"]', "")).tools.values()
        assert all(tool.told.endswith(tool.description) for tool in tools)
        return [tool.description for tool in tools]

    assert all(text.startswith("Sums.") for text in described("Sums."))
    assert not any(described(""))


def test_a_tool_may_be_any_function_that_can_be_imported(tmp_path: Path) -> None:
    text = GOOD.replace('use = "calculator"', 'use = "journeyman.tools.calculator:calculator"')
    assert list(crew(tmp_path, text).tools) == ["calculator"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "counting"', 'name = "counting"\nnmae = 1', "unknown key 'nmae'"),
        ("tokens = 300", "tokns = 300", "unknown key 'orchestrator.limits.tokns'; did you mean 'tokens'?"),
        ('tools = ["calculator"]', 'tools = ["calculater"]', "unknown tool 'calculater'; the crew has: calculator"),
        ('use = "calculator"', 'use = "abacus"', "unknown tool 'abacus'; have calculator, retrieve"),
        ('use = "calculator"', 'use = "no.such:thing"', "cannot be imported"),
        ('use = "calculator"', "", "needs `use`"),
        ('name = "counting"', "", "'name' is missing"),
        ('name = "counting"', "name = ", "not valid TOML"),
        ("[workers.sums]", "[workers.orchestrator]", "two agents of the name 'orchestrator'"),
        ("tokens = 300", "tokens = 0", "greater than or equal to 1"),
        (
            'name = "counting"',
            'name = "counting"\nverify = ["whole"]',
            "unknown verifier 'whole'; have integer, number",
        ),
        ("[workers.sums]", "[workers.sums]\nreplans = 1", "unknown key 'workers.sums.replans'; there are: "),
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


def test_the_tools_in_the_box_are_made_from_their_tables(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("owls hunt")
    sqlite3.connect(tmp_path / "shop.db").executescript("CREATE TABLE city (name TEXT);").connection.close()
    server = Path(__file__).parents[1] / "tools" / "mcp" / "mcp_server.py"
    text = (
        (
            GOOD.replace('tools = ["calculator"]', 'tools = ["calculator", "notes", "far_add"]')
            + f"""
        tools.shop = {{ use = "sql", path = "shop.db", max_rows = 5 }}
        tools.notes = {{ use = "files", path = "notes", write = true }}
        tools.facts = {{ use = "retrieve", path = "notes", k = 1 }}
        tools.program = {{ use = "python", max_seconds = 2 }}
        tools.web = {{ use = "http", hosts = ["*.example.com"], methods = ["GET", "POST"] }}
        tools.far = {{ use = "mcp", command = [{sys.executable!r}, {str(server)!r}], tools = ["add"] }}
        """
        )
        .replace('[tools.calculator]\nuse = "calculator"', '[tools]\ncalculator = { use = "calculator" }')
        .replace("        tools.", "")
    )
    read = crew(tmp_path, text)
    boxed = ["notes_list", "notes_read", "notes_search", "notes_write"]
    assert list(read.tools) == ["calculator", "shop", *boxed, "facts", "program", "web", "far_add"]
    assert all(name == tool.name for name, tool in read.tools.items())
    assert read.workers[0].tools == ("calculator", *boxed, "far_add")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('use = "sql"', "tools.calculator: 'path' is missing"),
        ('use = "sql"\npath = "none.db"', "none.db cannot be read"),
        ('use = "files"\npath = "."\nwrite = "perhaps"', "tools.calculator: 'write': Input should be a valid boolean"),
        ('use = "http"\nhosts = ["a.b"]\nmethods = ["PUT"]', "tools.calculator: 'methods.0': Input should be 'GET' or"),
        ('use = "python"\nmax_secs = 3', "tools.calculator: unknown key 'max_secs'; did you mean 'max_seconds'?"),
        ('use = "python"\naprove = true', "tools.calculator: unknown key 'aprove'; did you mean 'approve'?"),
        ('use = "calculator"\naprove = true', "tools.calculator: unknown key 'aprove'; did you mean 'approve'?"),
        ('use = "mcp"', "either a command or a url"),
        ('use = "http"\nhosts = "a.b"', "tools.calculator: 'hosts': write a list"),
        ('use = "http"\nhosts = ["a b"]', "tools.calculator: hosts: 'a b' is not a host"),
        ('use = "http"\nhosts = ["a.b"]\ncertificates = "none.pem"', "none.pem cannot be used: No such file"),
        ('use = "http"\nhosts = ["a.b"]\nmax_seconds = -1', "tools.calculator: 'max_seconds': Input should be greater"),
        ('use = "calculator"\ndigits = 3', "tools.calculator: unknown key 'digits'; there are: use, approve"),
        ('use = "calculator"\ndescription = 3', "tools.calculator: description must be a text, not 3"),
        ('use = "builtins:dict"', "tools.calculator: 'builtins:dict' gave a dict, not a Tool"),
        ('use = "sql"\npath = "a\\u0000b"', "tools.calculator: 'sql' failed: ValueError: embedded null byte"),
        ('use = "..:tool"', "tools.calculator: '..:tool' cannot be imported"),
        ('use = "json:dumps"', "tools.calculator: dumps() missing 1 required positional argument"),
    ],
)
def test_a_wrong_option_of_a_tool_is_named(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        crew(tmp_path, GOOD.replace('use = "calculator"', table))


@pytest.mark.parametrize("name", ["broken_shop:sell", "broken_shop_2:sell"])
def test_a_mistake_in_somebody_else_s_code_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_shop.py").write_text('def sell():\n    raise ValueError("sold\\nout")\n')
    (tmp_path / "broken_shop_2.py").write_text('raise ValueError("sold\\nout")\n')
    with pytest.raises(ConfigError, match=rf"crew\.toml: tools\.calculator.*{name}.*ValueError: sold out$"):
        crew(tmp_path, GOOD.replace('use = "calculator"', f'use = "{name}"'))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[workers.", "[worker.", "unknown key 'worker'"),
        ('tools = ["', 'fallback = "big"\ntools = ["', "fallback': write a list"),
        ("tools = [", "tool_first = true\ntols = [", "unknown key"),
    ],
)
def test_what_is_wrong_in_a_crew_s_file_is_said_in_the_words_of_the_file(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as raised:
        crew(tmp_path, GOOD.replace(old, new))
    assert "\n" not in str(raised.value)


def test_a_folder_is_no_crew_s_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_crew(tmp_path)


@pytest.mark.parametrize("key", ["tool_first", "needs_evidence"])
def test_an_agent_that_must_call_a_tool_has_one(key: str) -> None:
    worker = Agent.model_validate({"name": "w", "instructions": "i", key: True})
    with pytest.raises(ValidationError, match=rf"agent 'w' must call a tool \({key}\), but has none"):
        Crew(name="c", orchestrator=None, workers=(worker,))


def test_a_tool_goes_by_the_name_that_its_crew_gives_it() -> None:
    worker = Agent(name="w", instructions="i", tools=("sum",))
    assert Crew(name="c", orchestrator=None, workers=(worker,), tools={"sum": calculator}).tools["sum"].name == "sum"
    with pytest.raises(ValidationError, match="tool name 'answer' must be"):
        Crew(name="c", orchestrator=None, workers=(worker,), tools={"answer": calculator})


def test_two_tables_cannot_give_two_tools_of_one_name(tmp_path: Path) -> None:
    doubled = '\n[tools.x]\nuse = "files"\npath = "."\n[tools.x_read]\nuse = "calculator"\n'
    with pytest.raises(ConfigError, match="two tools of the name 'x_read'"):
        crew(tmp_path, GOOD + doubled)
