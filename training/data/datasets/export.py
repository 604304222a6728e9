"""Datasets in the forms that other programs read: TRL, OpenAI's fine-tuning, Hugging Face `datasets`, Parquet."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
from pyarrow.parquet import ParquetWriter
from pydantic_core import to_json

from journeyman.runtime.adapters.datasets import digest_file
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.files import make_folder, publish
from journeyman.traces.messages import as_json, chat_tool
from journeyman.training.data.datasets.card import Card, write_card
from journeyman.training.data.datasets.rows import DatasetRow, Part, read_rows
from journeyman.training.data.datasets.shelf import KnownDataset

Form = Literal["trl", "openai", "datasets", "parquet"]
FORMS: tuple[Form, ...] = get_args(Form)

BATCH = 1000
"""Rows of a row group in Parquet."""

NOT_OPENAI = ("kto", "prompts", "documents")
"""Kinds that its fine-tuning has no form for."""


def export(dataset: KnownDataset, form: Form, path: Path) -> Card:
    """Writes the rows in that form, all or nothing, and a card beside them; returns the card.

    Raises `ConfigError` for rows that the form can't hold, `StoreError` where the disk refuses.
    """
    if form == "openai" and (kinds := [kind for kind in NOT_OPENAI if kind in dataset.card.kind.split(" + ")]):
        raise ConfigError(f"OpenAI's fine-tuning has no form for rows of kind {kinds[0]}: choose another --as")
    rows = read_rows(dataset.path)
    draft = path.with_name(f".export-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        make_folder(path.parent)
        if form == "parquet":
            _write_parquet(rows, draft)
        else:
            with draft.open("wb") as file:
                file.writelines(to_json(_SHAPES[form](row)) + b"\n" for row in rows)
        card = dataset.card.model_copy(
            update={"digest": digest_file(draft), "form": form, "exported_from": dataset.digest}
        )
        write_card(card, path)
        publish(draft, path)
    except OSError as error:
        raise StoreError(f"{path} was not written: {error.strerror or error}; name another --out") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return card


def _write_parquet(rows: Iterable[DatasetRow], path: Path) -> None:
    with ParquetWriter(path, COLUMNS) as writer:
        flat = map(_flat, rows)
        while some := list(islice(flat, BATCH)):
            writer.write_table(pa.Table.from_pylist(some, schema=COLUMNS))


def _trl(row: DatasetRow) -> dict[str, Any]:
    """Conversational, as TRL's guide to dataset formats has it; tools as JSON, which its trainers read."""
    if row.text:
        return {"text": row.text}
    values: dict[str, Any] = {"prompt": [_message(message, parsed=True) for message in row.messages]}
    for part in row.parts:
        key = "completion" if part.side == "reply" else part.side
        values[key] = [_message(_replied(part), parsed=True)]
    if row.kind == "kto":
        values["label"] = row.values["label"]
    if (task := row.values.get("task")) is not None:
        values["reference"] = as_json(task.get("reference"))  # For the reward function.
    if row.values.get("tools"):
        values["tools"] = as_json(_tools(row))
    return values


def _openai(row: DatasetRow) -> dict[str, Any]:
    """A chat whose earlier replies have no weight, or a prompt with two outputs."""
    tools = {"tools": _tools(row)} if row.values.get("tools") else {}
    replies = [_message(_replied(part), parsed=False) for part in row.parts]
    messages = [_message(message, parsed=False) for message in row.messages]
    if len(replies) == 1:
        earlier = [{**one, "weight": 0} if one["role"] == "assistant" else one for one in messages]
        return {"messages": [*earlier, *replies], **tools}
    preferred, other = ([reply] for reply in replies)
    return {"input": {"messages": messages, **tools}, "preferred_output": preferred, "non_preferred_output": other}


def _flat(row: DatasetRow) -> dict[str, Any]:
    """Columns of one type each, where they came from included; what has no fixed form is JSON."""
    values = row.values
    flat: dict[str, Any] = dict.fromkeys(COLUMNS.names)
    flat |= {name: values.get(name) for name in ("agent", "origin", "policy", "trace_id", "weight", "label", "text")}
    flat |= {
        "kind": row.kind,
        "span_ids": row.span_ids,
        "prompt": [_columns(message) for message in row.messages],
        "tools": as_json(values["tools"]) if values.get("tools") else None,
    }
    for part in row.parts:
        name = "completion" if part.side == "reply" else part.side
        flat |= {name: part.text, f"{name}_tool_calls": as_json(part.calls) if part.calls else None}
    return flat


_SHAPES: Mapping[Form, Callable[[DatasetRow], dict[str, Any]]] = {"trl": _trl, "openai": _openai, "datasets": _flat}


def _tools(row: DatasetRow) -> list[dict[str, Any]]:
    return [chat_tool(tool, strict=False) for tool in row.values["tools"]]


def _replied(part: Part) -> dict[str, Any]:
    return {"role": "assistant", "content": part.text, "tool_calls": part.calls}


def _message(message: Mapping[str, Any], *, parsed: bool) -> dict[str, Any]:
    """Of the chat API; `parsed` as chat templates read it."""
    chat = {key: message[key] for key in ("role", "content", "tool_call_id", "name") if message.get(key) is not None}
    if message.get("tool_calls"):
        chat["tool_calls"] = [_call(call, parsed) for call in message["tool_calls"]]
    return chat


def _call(call: Mapping[str, Any], parsed: bool) -> dict[str, Any]:
    arguments = call["arguments"] if parsed else as_json(call["arguments"])
    return {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def _columns(message: Mapping[str, Any]) -> dict[str, Any]:
    calls: Sequence[Any] = message.get("tool_calls") or ()
    columns = {name: message.get(name) for name in ("role", "content", "name", "tool_call_id")}
    return {**columns, "tool_calls": as_json(calls) if calls else None}


def _texts(names: Sequence[str]) -> Iterator[tuple[str, pa.DataType]]:
    return ((name, pa.string()) for name in names)


COLUMNS = pa.schema(
    [
        *_texts(["kind", "agent", "origin", "policy", "trace_id"]),
        ("span_ids", pa.list_(pa.string())),
        ("weight", pa.float64()),
        ("prompt", pa.list_(pa.struct([*_texts(["role", "content", "name", "tool_call_id", "tool_calls"])]))),
        *_texts(["completion", "completion_tool_calls", "chosen", "chosen_tool_calls"]),
        *_texts(["rejected", "rejected_tool_calls"]),
        ("label", pa.bool_()),
        *_texts(["text", "tools"]),
    ]
)
