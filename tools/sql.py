"""SQL: read-only questions to one SQLite or DuckDB file.

What it protects from: a query can't write, attach another file, load an extension, read files of the machine, run
longer than its time, or flood the prompt. Four walls stand behind each other: the file is opened for reading only, the
engine is told which statements it may compile, the time of a query is limited, and so are its rows.

What it does not: whatever is in the file can be read, by any agent that has the tool. Make a view or a copy of what
may be seen. A query may use a processor core for `max_seconds`, and space for sorting in the temp folder. Either engine
looks at the clock between its steps only: one step that pads a text to a huge width (`printf` in SQLite) or builds one
huge value (DuckDB) may use more than its time, and in DuckDB more than its memory. The call is given up all the same.
"""

import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from journeyman.tools.tool import Count, Seconds, Tool
from journeyman.traces.errors import ConfigError, ToolError

MAX_CELL_CHARS = 200
MAX_SCHEMA_CHARS = 6_000
MAX_VALUE_BYTES = 10_000_000
"""Of one value in SQLite: a query could else build a text of a gigabyte in one step, which no time limit cuts short."""
MAX_PATTERN_BYTES = 200
"""Of LIKE and GLOB in SQLite: time grows with the pattern's length times the text's, in one step."""
MAX_QUERY_CHARS = 20_000
DUCKDB_MEMORY = "512MB"
PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)
"""A name that a query can write without quotes, unless it is one of SQL's own words."""
STEPS_BETWEEN_LOOKS = 1_000
"""Of SQLite's virtual machine, after which the clock is read."""


def sql(
    path: Path,
    *,
    max_rows: Count = 50,
    max_seconds: Seconds = 10.0,
    name: str = "sql",
    description: str = "Answers one read-only SQL query.",
) -> Tool:
    """A tool `name(query: str) -> str` that asks the database file at `path`, SQLite or DuckDB, told apart by content.

    Tables and views, as they are now, are listed in the tool's description, unless that is empty, so that a model can
    write a query at once.
    The answer is a header and the rows, values between `|`, with a last line where rows were left out.
    What the engine refuses is a `ToolError` with the engine's words; a file that is no database is a `ConfigError`.

    - `path`: the database file.
    - `max_rows`: rows that an answer has at most.
    - `max_seconds`: after so long a query is stopped.
    - `description`: what agents are told of the tool, in front of its tables; empty tells them nothing.
    """
    database = open_database(Path(path), max_seconds)

    def ask(query: str) -> str:
        if len(query) > MAX_QUERY_CHARS:
            raise ToolError(f"the query has {len(query):,} characters; write at most {MAX_QUERY_CHARS:,}")
        columns, rows = database.ask(query, max_rows + 1)
        return _table(columns, rows, max_rows)

    tables = list_tables(Path(path), database)
    told = f"{description} The database is {database.dialect}:\n{tables}" if description else ""
    return Tool(ask, name=name, description=told, timeout_s=max_seconds + 5)


class Database(Protocol):
    """A file behind the walls that this module puts up."""

    dialect: str

    def ask(self, query: str, limit: int) -> tuple[list[str], list[Sequence[Any]]]:
        """Names of the columns, and the first `limit` rows; raises `ToolError`."""
        ...

    def tables(self) -> list[str]:
        """Each table or view on one line, with its columns."""
        ...


def list_tables(path: Path, database: Database) -> str:
    """The tables of the file at `path`, as a model is told of them; raises `ConfigError` where it is no database."""
    try:
        return _listed(database.tables())
    except Exception as error:  # Each engine has its own; the file is damaged, locked or encrypted.
        raise ConfigError(f"{path} cannot be read as a {database.dialect} file: {error}") from None


def open_database(path: Path, max_seconds: float = 10.0) -> Database:
    """The file at `path`, SQLite or DuckDB, told apart by content; raises `ConfigError` for another one."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if head[8:12] == b"DUCK":
        return _DuckDB(path, max_seconds)
    if head == b"SQLite format 3\0":
        return _SQLite(path, max_seconds)
    raise ConfigError(f"{path} is neither an SQLite nor a DuckDB file: name one of those")


class _SQLite:
    dialect = "SQLite"

    READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
    PRAGMAS = frozenset(
        # What a full-text index asks for itself, and what describes tables.
        {"data_version", "table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"}
    )
    FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})

    def __init__(self, path: Path, max_seconds: float) -> None:
        self._uri = f"{path.resolve().as_uri()}?mode=ro"
        self._max_seconds = max_seconds

    def ask(self, query: str, limit: int) -> tuple[list[str], list[Sequence[Any]]]:
        try:
            with self._connection() as connection:
                cursor = connection.execute(query)
                if cursor.description is None:
                    raise ToolError("write one SELECT")
                return [column[0] for column in cursor.description], cursor.fetchmany(limit)
        except sqlite3.DatabaseError as error:
            raise ToolError(self._reason(error)) from None
        except (sqlite3.Warning, sqlite3.Error, UnicodeEncodeError) as error:
            raise ToolError(f"the query was not accepted: {error}") from None

    def tables(self) -> list[str]:
        with self._connection() as connection:
            names = connection.execute(
                "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type <> 'shadow'"
                " AND name NOT LIKE 'sqlite_%' ORDER BY type, name"
            ).fetchall()
            return [self._described(connection, name, kind) for name, kind in names]

    def _described(self, connection: sqlite3.Connection, name: str, kind: str) -> str:
        columns = connection.execute("SELECT name, type FROM pragma_table_info(?)", (name,)).fetchall()
        keys = connection.execute('SELECT "from", "table", "to" FROM pragma_foreign_key_list(?)', (name,)).fetchall()
        refers = {column: f" → {_quoted(table)}.{_quoted(to) if to else 'its key'}" for column, table, to in keys}
        told = [f"{_quoted(column)} {type_}".strip() + refers.get(column, "") for column, type_ in columns]
        return _entry(_quoted(name), kind, told)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """One for each call: any number of threads may ask, and what others have written meanwhile is seen."""
        connection = sqlite3.connect(self._uri, uri=True, timeout=1.0, isolation_level=None)
        try:
            connection.text_factory = lambda text: text.decode(errors="replace")
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.set_authorizer(self._allows)
            until = monotonic() + self._max_seconds
            connection.set_progress_handler(lambda: monotonic() > until, STEPS_BETWEEN_LOOKS)
            yield connection
        finally:
            connection.close()

    def _allows(self, action: int, first: str | None, second: str | None, *_where: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            allowed = (second or "").lower() not in self.FORBIDDEN_FUNCTIONS
        elif action == sqlite3.SQLITE_PRAGMA:
            allowed = (first or "").lower() in self.PRAGMAS
        elif action == sqlite3.SQLITE_UPDATE:
            # So SQLite announces that it looks up a virtual table. A real change fails: the file is open read-only.
            allowed = first == "sqlite_master"
        else:
            allowed = action in self.READS
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def _reason(self, error: sqlite3.DatabaseError) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_INTERRUPT:
            return _out_of_time(self._max_seconds)
        if code == sqlite3.SQLITE_AUTH:
            return f"{error}: only SELECT is allowed"
        return str(error)


class _DuckDB:
    dialect = "DuckDB"

    def __init__(self, path: Path, max_seconds: float) -> None:
        self._path = path
        self._max_seconds = max_seconds

    def ask(self, query: str, limit: int) -> tuple[list[str], list[Sequence[Any]]]:
        import duckdb

        try:
            statements = duckdb.extract_statements(query)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise ToolError("write exactly one SELECT")
            with self._connection() as connection:
                cursor = connection.execute(statements[0])
                return [column[0] for column in cursor.description], cursor.fetchmany(limit)
        except duckdb.InterruptException:
            raise ToolError(
                f"the query was stopped after {self._max_seconds:g} s; ask for less, or aggregate"
            ) from None
        except (duckdb.Error, UnicodeEncodeError) as error:
            raise ToolError(" ".join(str(error).split())) from None

    def tables(self) -> list[str]:
        with self._connection() as connection:
            found = connection.execute(
                "SELECT table_schema, table_name, list([column_name, data_type] ORDER BY ordinal_position)"
                " FROM information_schema.columns GROUP BY table_schema, table_name"
                " ORDER BY table_schema <> 'main', table_schema, table_name"
            ).fetchall()
        return [self._described(*table) for table in found]

    def _described(self, schema: str, table: str, columns: list[list[str]]) -> str:
        where = "" if schema == "main" else f"{_quoted(schema)}."
        return _entry(where + _quoted(table), "table", [f"{_quoted(column)} {type_}" for column, type_ in columns])

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        import duckdb

        settings: dict[str, str | bool | int | float | list[str]] = {
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "memory_limit": DUCKDB_MEMORY,
            "lock_configuration": True,
        }
        with duckdb.connect(str(self._path), read_only=True, config=settings) as connection:
            timer = threading.Timer(self._max_seconds, connection.interrupt)
            timer.start()
            try:
                yield connection
            finally:
                timer.cancel()


def _out_of_time(seconds: float) -> str:
    return f"the query was stopped after {seconds:g} s; ask for less, or aggregate"


def _entry(name: str, kind: str, columns: Sequence[str]) -> str:
    return f"{'view ' if kind == 'view' else ''}{name}({', '.join(columns)})"


def _quoted(name: str) -> str:
    """As a query must write it."""
    return name if PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _listed(tables: list[str]) -> str:
    shown: list[str] = []
    length = 0
    for table in tables:
        length += len(table) + 1
        if length > MAX_SCHEMA_CHARS:
            return "\n".join([*shown, f"and {len(tables) - len(shown)} more tables"])
        shown.append(table)
    return "\n".join(shown) or "no tables"


def _table(columns: list[str], rows: list[Sequence[Any]], max_rows: int) -> str:
    shown = [" | ".join(_cell(value) for value in row) for row in rows[:max_rows]]
    if len(rows) > max_rows:
        shown.append(f"[the first {max_rows} rows; there are more: narrow the query, or aggregate]")
    return "\n".join([" | ".join(columns), *shown]) if rows else "no rows"


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    text = " ".join(str(value).splitlines())
    return text if len(text) <= MAX_CELL_CHARS else f"{text[:MAX_CELL_CHARS]}…"
