"""SQL answers questions to a database file, and does nothing else to it or to the machine."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import duckdb
import pytest

from journeyman.tools.call import call_tool
from journeyman.tools.sql import sql
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError, ToolError

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lite") / "shop? #1.db"
    database = sqlite3.connect(path)
    database.executescript(
        """
        CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT, people INT);
        CREATE TABLE sale (city INTEGER REFERENCES city(id), amount REAL, photo BLOB);
        CREATE VIEW big AS SELECT name FROM city WHERE people > 100;
        CREATE VIRTUAL TABLE notes USING fts5(text);
        INSERT INTO city VALUES (1, 'Bern', 134000), (2, 'Guarda
in the hills', 160), (3, NULL, 9);
        INSERT INTO sale VALUES (1, 2.5, x'0102');
        INSERT INTO notes VALUES ('the bridge is closed');
        """
    )
    database.close()
    return path


@pytest.fixture(scope="module")
def duck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("duck") / "shop.any"
    with duckdb.connect(str(path)) as database:
        database.execute("CREATE TABLE city AS SELECT 'Bern' AS name, 134000 AS people")
    return path


@pytest.fixture(params=["lite", "duck"])
def either(request: pytest.FixtureRequest) -> Iterator[Tool]:
    path: Path = request.getfixturevalue(request.param)
    before = path.read_bytes()
    yield sql(path, max_seconds=0.5)
    assert path.read_bytes() == before


def asked(tool: Tool, query: str) -> str:
    return str(tool.function(query))


def test_the_description_shows_what_there_is_to_ask_for(lite: Path, duck: Path) -> None:
    told = sql(lite, description="Knows the shop.").description
    assert told.startswith("Knows the shop. The database is SQLite:")
    assert "\ncity(id INTEGER, name TEXT, people INT)" in told
    assert "\nsale(city INTEGER → city.id, amount REAL, photo BLOB)" in told
    assert "\nview big(name TEXT)" in told and "\nnotes(text)" in told and "notes_data" not in told
    assert sql(duck).description.endswith("The database is DuckDB:\ncity(name VARCHAR, people INTEGER)")


def test_what_is_listed_can_be_asked_for_by_the_name_it_is_listed_under(tmp_path: Path) -> None:
    lite, duck = tmp_path / "shop.db", tmp_path / "shop.duckdb"
    statements = ['CREATE TABLE "my order" ("unit price" INT, "a""b" INT)', "CREATE TABLE plain (x INT)"]
    database = sqlite3.connect(lite)
    for statement in statements:
        database.execute(statement)
    database.close()
    with duckdb.connect(str(duck)) as other:
        for statement in [*statements, "CREATE SCHEMA old", "CREATE TABLE old.plain (y INT)"]:
            other.execute(statement)
    assert sql(lite).description.endswith(':\n"my order"("unit price" INT, "a""b" INT)\nplain(x INT)')
    assert sql(duck).description.endswith(
        ':\n"my order"("unit price" INTEGER, "a""b" INTEGER)\nplain(x INTEGER)\nold.plain(y INTEGER)'
    )


def test_rows_are_a_compact_table(lite: Path, duck: Path) -> None:
    shop = sql(lite)
    assert asked(shop, "SELECT name, people FROM city") == (
        "name | people\nBern | 134000\nGuarda in the hills | 160\nNULL | 9"
    )
    assert asked(shop, "SELECT * FROM sale") == "city | amount | photo\n1 | 2.5 | <2 bytes>"
    assert asked(shop, "SELECT * FROM notes WHERE notes MATCH 'bridge'") == "text\nthe bridge is closed"
    assert asked(shop, "SELECT * FROM city WHERE id = 9") == "no rows"
    assert asked(sql(duck), "SELECT * FROM city") == "name | people\nBern | 134000"


def test_what_is_too_much_is_cut_and_said_to_be(lite: Path) -> None:
    shop = sql(lite, max_rows=2)
    shown = asked(shop, "SELECT id FROM city").splitlines()
    assert shown == ["id", "1", "2", "[the first 2 rows; there are more: narrow the query, or aggregate]"]
    assert asked(shop, "SELECT 1 UNION SELECT 2").splitlines()[1:] == ["1", "2"]
    assert len(asked(shop, "SELECT hex(zeroblob(5000))")) < 300


@pytest.mark.parametrize(
    "query",
    [
        *("INSERT INTO city VALUES (9, 'x', 1)", "DELETE FROM city", "DROP TABLE city", "CREATE TABLE t (x INT)"),
        *("ATTACH '{other}' AS other", "COPY city TO '{other}'", "VACUUM INTO '{other}'", "EXPORT DATABASE '{other}'"),
        *("PRAGMA journal_mode = DELETE", "PRAGMA writable_schema = ON", "SET memory_limit = '99GB'", "BEGIN"),
        *("SELECT load_extension('x')", "INSTALL httpfs", "SELECT writefile('{other}', 'x')"),
        *("SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'", "SELECT readfile('/etc/passwd')"),
        *("SELECT 1; DELETE FROM city", "", "SELEC 1", "SELECT no_such_column FROM city"),
    ],
)
def test_whatever_does_more_than_read_is_refused(either: Tool, query: str, tmp_path: Path) -> None:
    with pytest.raises(ToolError) as raised:
        either.function(query.format(other=tmp_path / "other"))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


async def test_a_model_reads_the_engine_s_own_words(lite: Path) -> None:
    called = await call_tool(sql(lite), {"query": "SELECT nme FROM city"})
    assert (called.status, called.content) == ("failed", "sql: no such column: nme")


def test_a_query_without_end_is_stopped(either: Tool) -> None:
    started = perf_counter()
    with pytest.raises(ToolError, match=r"stopped after 0\.5 s"):
        either.function(ENDLESS)
    assert perf_counter() - started < 3


def test_a_value_of_a_gigabyte_is_refused(lite: Path) -> None:
    for query in ("SELECT zeroblob(1000000000)", "SELECT replace(hex(zeroblob(4000000)), '0', '0000000000')"):
        with pytest.raises(ToolError, match="too big"):
            sql(lite).function(query)


def test_a_pattern_that_would_be_tried_for_hours_is_refused(lite: Path) -> None:
    with pytest.raises(ToolError, match="pattern too complex"):
        sql(lite).function(
            "SELECT replace(hex(zeroblob(500)), '00', '%a_') LIKE replace(hex(zeroblob(500)), '00', '%a_')"
        )


def test_threads_ask_side_by_side_and_see_what_others_wrote(lite: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(lite.read_bytes())
    shop = sql(copy)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: asked(shop, "SELECT count(*) AS n FROM city"), range(40))) == {"n\n3"}
    database = sqlite3.connect(copy)
    with database:
        database.execute("DELETE FROM city WHERE id = 3")
    database.close()
    assert asked(shop, "SELECT count(*) AS n FROM city") == "n\n2"


def test_a_file_that_is_no_database_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database at all")
    (tmp_path / "broken").write_bytes(b"SQLite format 3\0" + b"\1" * 5000)
    for name, why in {
        "none": "cannot be read",
        "text": "is neither",
        "broken": "cannot be read as a SQLite file",
    }.items():
        with pytest.raises(ConfigError, match=why):
            sql(tmp_path / name)
    assert not (tmp_path / "none").exists()
