"""The reference: its page is what the code says, and nothing public goes without a word."""

import ast
import re
import rlcompleter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from reference.keys import keys
from reference.names import PACKAGES, exported, named
from reference.page import PAGE, page
from reference.source import UndescribedError

ROOT = Path(__file__).parents[1]
FOLDERS = ("traces", "tools", "agents", "runtime", "training")


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make reference`"


def test_the_page_shows_no_insides_of_python() -> None:
    inside = r"<(?:class|function|object)|\bobject at 0x|PydanticUndefined|journeyman\.\w+\.\w+\.\w+"
    assert re.findall(inside, page()) == []


PROBE = '''
from journeyman.traces.base import Config

class Table(Config):
    """A table."""
    told: int = 1
    """What it is."""
    untold: int = 2

class Bare(Table): ...

def bare() -> None: ...

BARE = 1
'''


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "journeyman_probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(tmp_path)
    return "journeyman_probe"


def test_a_key_without_a_description_is_refused(probe: str) -> None:
    with pytest.raises(UndescribedError, match=r"^Table\.untold has no description"):
        keys(import_module(probe).Table)


@pytest.mark.parametrize("name", ["Bare", "bare", "BARE"])
def test_a_public_name_without_a_docstring_of_its_own_is_refused(probe: str, name: str) -> None:
    with pytest.raises(UndescribedError, match=f"^{name} has no description"):
        list(named(name, probe, {}))


def test_every_package_that_offers_names_is_on_the_page_and_completes_them() -> None:
    offering = [
        path for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py") if "exports(" in path.read_text()
    ]
    assert {f"journeyman.{path.parent.relative_to(ROOT)}" for path in offering} == set(PACKAGES)
    for name in PACKAGES:
        package = import_module(name)
        completed = rlcompleter.Completer({"package": package}).attr_matches("package.")
        assert dir(package) == sorted(exported(name))
        assert {match.rstrip("()").removeprefix("package.") for match in completed} >= exported(name).keys()


def test_every_variable_of_the_environment_is_read_by_a_name_that_the_page_has() -> None:
    read = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for name in literal_variables(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert read == set()


def literal_variables(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case (
                ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=str(name)))
                | ast.Call(
                    func=ast.Attribute(value=ast.Attribute(attr="environ")), args=[ast.Constant(value=str(name)), *_]
                )
                | ast.Call(func=ast.Attribute(attr="getenv"), args=[ast.Constant(value=str(name)), *_])
                | ast.Compare(left=ast.Constant(value=str(name)), comparators=[ast.Attribute(attr="environ")])
            ):
                yield name
