"""The stores that `trace_store` compares: each keeps the same spans and answers the same questions."""

import json
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import duckdb
import httpx
from _spans import AGENT
from pydantic_core import from_json, to_json

from journeyman.runtime.serving.process import spawn
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.exchange.endpoint import open_endpoint
from journeyman.traces.messages import learnable_messages, read_prompt
from journeyman.traces.storage.columns import to_table
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.segments import Segments
from journeyman.traces.storage.store import TraceStore
from journeyman.training.data.choosing.choose import Choosing
from journeyman.training.data.mine import mine_to_file
from journeyman.training.data.samples import SFTSample, plain_line, write_lines
from journeyman.training.data.sft import SFTMining
from journeyman.training.data.source import MineConfig, Source

IDS = """SELECT trace_id FROM spans WHERE operation = 'invoke_workflow' AND run_status = 'ok' AND start_ns >= ?
AND trace_id IN (SELECT trace_id FROM spans WHERE agent = ? AND operation = 'invoke_agent' AND start_ns >= ?)
ORDER BY start_ns"""

AGGREGATE = """SELECT agent, sum(CASE WHEN operation = 'invoke_agent' THEN 1 ELSE 0 END) AS trajectories,
sum(CASE WHEN operation = 'invoke_agent' AND run_status = 'ok' THEN 1 ELSE 0 END) AS ended_well,
sum(CASE WHEN operation = 'chat' THEN 1 ELSE 0 END) AS turns,
sum(CASE WHEN operation = 'execute_tool' THEN 1 ELSE 0 END) AS tool_calls,
sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, sum(cached_tokens) AS cached_tokens,
avg(CASE WHEN operation = 'chat' THEN end_ns - start_ns END) AS turn_ns, max(end_ns - start_ns) AS longest_ns
FROM spans WHERE agent IS NOT NULL GROUP BY agent ORDER BY agent"""
"""Every span of an agent counts."""

TOKENS = {"prompt_token_ids": a.PROMPT_TOKEN_IDS, "token_ids": a.TOKEN_IDS}

_TURNS = """SELECT {columns} FROM spans AS chat WHERE operation = 'chat' AND agent = ? AND parent_id IN
(SELECT span_id FROM spans WHERE operation = 'invoke_agent' AND agent = ? AND run_status = 'ok')"""


class Store(Protocol):
    appends: int
    """Single appends that are timed."""

    def append(self, span: SpanRecord, *, sync: bool) -> None: ...
    def bulk(self, spans: Sequence[SpanRecord]) -> None: ...

    def settle(self) -> None:
        """What is done now and then, not for each span: compaction, a checkpoint."""

    def ids(self, since_ns: int) -> list[str]:
        """Traces in which the agent took part, which ended well, and which started since then."""

    def aggregate(self) -> int:
        """Rows of the full aggregate by agent."""

    def rows(self, file: Path) -> int:
        """Writes all that the agent did in trajectories that ended well as SFT rows, and says how many rows."""

    def close(self) -> None: ...


class Journeyman:
    """Ours: spans go into the log, one by one or many at once, and into segments when it is compacted."""

    appends = 20_000

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = SpanLog(folder)
        self._segments = Segments(folder)
        self._store = TraceStore(folder, folder / "labels.jsonl")

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self._log.append(span, sync=sync)

    def bulk(self, spans: Sequence[SpanRecord]) -> None:
        self._log.append_many(spans, sync=True)

    def settle(self) -> None:
        self._log.close()
        compact(self._folder, self._segments, processes=min(4, os.cpu_count() or 1))

    def ids(self, since_ns: int) -> list[str]:
        return self._store.ids(agent=AGENT, status="ok", since_ns=since_ns)

    def aggregate(self) -> int:
        return len(self._store.sql(AGGREGATE))

    def rows(self, file: Path) -> int:
        source = Source(self._store, AGENT, MineConfig())
        dataset = mine_to_file(SFTMining(source), file.parent, lambda digest: file.name, Choosing(source))
        return 0 if dataset is None else dataset.rows

    def close(self) -> None:
        self._log.close()


class SQLite:
    """One file in WAL mode, a row for each span, with indexes for the questions."""

    appends = 20_000
    columns = (
        *("trace_id", "span_id", "parent_id", "name", "kind", "start_ns", "end_ns", "status", "operation", "agent"),
        *("run_status", "input_tokens", "output_tokens", "cached_tokens", "attributes"),
    )

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(folder / "spans.db", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute(f"CREATE TABLE IF NOT EXISTS spans ({', '.join(self.columns)})")
        self._database.execute("CREATE INDEX IF NOT EXISTS runs ON spans (operation, run_status, start_ns, trace_id)")
        self._database.execute("CREATE INDEX IF NOT EXISTS agents ON spans (agent, operation, start_ns, trace_id)")
        self._insert = f"INSERT INTO spans VALUES ({', '.join('?' * len(self.columns))})"

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self._database.execute(self._insert, _values(span))

    def bulk(self, spans: Sequence[SpanRecord]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany(self._insert, map(_values, spans))
        self._database.execute("COMMIT")

    def settle(self) -> None:
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.execute("ANALYZE")

    def ids(self, since_ns: int) -> list[str]:
        return [row[0] for row in self._database.execute(IDS, [since_ns, AGENT, since_ns])]

    def aggregate(self) -> int:
        return len(self._database.execute(AGGREGATE).fetchall())

    def rows(self, file: Path) -> int:
        columns = "chat.trace_id, chat.span_id, chat.attributes"
        return _write(self._turns(_TURNS.format(columns=columns)), file)

    def _turns(self, query: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        for trace_id, span_id, text in self._database.execute(query, [AGENT, AGENT]):
            yield trace_id, span_id, from_json(text)

    def close(self) -> None:
        self._database.close()


class DuckDBFile:
    """One DuckDB file with our columns."""

    appends = 500

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = duckdb.connect(folder / "spans.duckdb", config={"memory_limit": "2GB"})
        empty = to_table([])
        self._database.register("arriving", empty)
        self._database.execute("CREATE TABLE IF NOT EXISTS spans AS FROM arriving")
        self._insert = f"INSERT INTO spans VALUES ({', '.join('?' * empty.num_columns)})"

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        (row,) = to_table([span]).to_pylist()
        self._database.execute(self._insert, list(row.values()))

    def bulk(self, spans: Sequence[SpanRecord]) -> None:
        self._database.register("arriving", to_table(spans))
        self._database.execute("INSERT INTO spans FROM arriving")

    def settle(self) -> None:
        self._database.execute("CHECKPOINT")

    def ids(self, since_ns: int) -> list[str]:
        return [row[0] for row in self._database.execute(IDS, [since_ns, AGENT, since_ns]).fetchall()]

    def aggregate(self) -> int:
        return len(self._database.execute(AGGREGATE).fetchall())

    def rows(self, file: Path) -> int:
        return _write(self._turns(), file)

    def _turns(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        names = {"chat.input_messages": a.INPUT_MESSAGES, "chat.output_messages": a.OUTPUT_MESSAGES} | {
            "to_json(chat.prompt_token_ids)": a.PROMPT_TOKEN_IDS,
            "to_json(chat.token_ids)": a.TOKEN_IDS,
        }
        system = f"""chat.attributes ->> '$."{a.SYSTEM_INSTRUCTIONS}"'"""
        columns = ", ".join(["chat.trace_id", "chat.span_id", system, *names])
        found = self._database.execute(_TURNS.format(columns=columns), [AGENT, AGENT])
        while rows := found.fetchmany(2048):
            for trace_id, span_id, *values in rows:
                yield trace_id, span_id, dict(zip((a.SYSTEM_INSTRUCTIONS, *names.values()), values, strict=True))

    def close(self) -> None:
        self._database.close()


class MLflow:
    """`mlflow server` with SQLite, by OTLP, and asked through its own search."""

    appends = 50

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        store = ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        places = ["--artifacts-destination", str(folder / "artifacts")]
        log = folder / "server.log"
        self._server = spawn([*command, *store, *places], env=dict(os.environ), log=log)
        self._wait()
        self._endpoint = open_endpoint(self.url, "mlflow")

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self._endpoint.send_spans([span], 60.0)

    def bulk(self, spans: Sequence[SpanRecord]) -> None:
        for start in range(0, len(spans), 200):
            self._endpoint.send_spans(spans[start : start + 200], 120.0)

    def settle(self) -> None:
        """It has nothing of the kind."""

    def ids(self, since_ns: int) -> list[str]:
        found = self._search(f"attributes.status = 'OK' AND attributes.timestamp_ms >= {since_ns // 10**6}")
        return [
            trace.info.trace_id
            for trace in found
            if any((span.attributes or {}).get(a.AGENT_NAME) == AGENT for span in trace.data.spans)
        ]

    def aggregate(self) -> int:
        agents: dict[str, int] = {}
        for trace in self._search(None):
            for span in trace.data.spans:
                if name := (span.attributes or {}).get(a.AGENT_NAME):
                    agents[name] = agents.get(name, 0) + 1
        return len(agents)

    def rows(self, file: Path) -> int:
        return _write(self._turns(), file)

    def _turns(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        for trace in self._search(None):
            well = {span.span_id for span in trace.data.spans if (span.attributes or {}).get(a.STATUS) == "ok"}
            for span in trace.data.spans:
                known = span.attributes or {}
                if (known.get(a.AGENT_NAME), known.get(a.OPERATION)) == (AGENT, "chat") and span.parent_id in well:
                    texts = {a.INPUT_MESSAGES: span.inputs, a.OUTPUT_MESSAGES: span.outputs}
                    yield trace.info.trace_id, span.span_id, known | {name: _parts(texts[name]) for name in texts}

    def _search(self, condition: str | None) -> Iterator[Any]:
        import mlflow

        client = mlflow.MlflowClient(self.url)
        experiments = [found.experiment_id for found in client.search_experiments()]
        token = None
        while True:
            page = client.search_traces(
                locations=experiments, filter_string=condition, max_results=100, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def close(self) -> None:
        self._endpoint.close()
        self._server.end()

    def _wait(self) -> None:
        for _ in range(240):
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5.0, trust_env=False).is_success:
                    return
            if not self._server.alive:
                raise RuntimeError("mlflow server ended at its start")
            time.sleep(0.5)
        self._server.end()
        raise RuntimeError("mlflow server did not answer within two minutes")


def _values(span: SpanRecord) -> tuple[Any, ...]:
    known = span.attributes
    return (
        *(span.trace_id, span.span_id, span.parent_id, span.name, span.kind, span.start_ns, span.end_ns, span.status),
        *(known.get(name) for name in (a.OPERATION, a.AGENT_NAME, a.STATUS)),
        *(known.get(name) for name in (a.INPUT_TOKENS, a.OUTPUT_TOKENS, a.CACHED_TOKENS)),
        json.dumps(known, ensure_ascii=False),
    )


def _write(turns: Iterable[tuple[str, str, Mapping[str, Any]]], file: Path) -> int:
    """Rows as ours are, without the merging of duplicates."""
    return write_lines(map(_line, turns), file.parent, lambda digest: file.name).rows


def _line(turn: tuple[str, str, Mapping[str, Any]]) -> bytes:
    trace_id, span_id, known = turn
    system = {name: value for name, value in known.items() if name == a.SYSTEM_INSTRUCTIONS}
    told = [message.model_dump(exclude_none=True) for message in read_prompt(system)]
    return plain_line(
        SFTSample,
        agent=AGENT,
        policy="",
        trace_id=trace_id,
        span_ids=[span_id],
        messages=[*told, *learnable_messages(known[a.INPUT_MESSAGES])],
        completion=next(learnable_messages(known[a.OUTPUT_MESSAGES]))["content"],
        written={name: _ids(known[key]) for name, key in TOKENS.items()},
    )


def _parts(said: Mapping[str, Any]) -> list[Any]:
    """MLflow's messages as the conventions have them."""
    return [
        {"role": message["role"], "parts": [{"type": "text", "content": message["content"]}]}
        for message in said["messages"]
    ]


def _ids(value: Any) -> str:
    """JSON as a row has it."""
    return value.replace(" ", "") if isinstance(value, str) else to_json(value).decode()


STORES: dict[str, type[Journeyman] | type[SQLite] | type[DuckDBFile] | type[MLflow]] = {
    "journeyman": Journeyman,
    "sqlite_wal": SQLite,
    "duckdb_file": DuckDBFile,
    "mlflow_sqlite": MLflow,
}
