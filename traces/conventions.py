"""The GenAI conventions that our record follows, as a table; `conventions.toml` says of which commit."""

import tomllib
from datetime import date
from functools import cache
from importlib import resources
from typing import Any, Literal

from journeyman.traces.base import Record


class Levels(Record):
    """Names of attributes, by how much they are asked for."""

    required: frozenset[str] = frozenset()
    conditional: frozenset[str] = frozenset()
    """Required where there is something to say, e.g. `error.type` where the span failed."""
    recommended: frozenset[str] = frozenset()
    opt_in: frozenset[str] = frozenset()

    @property
    def attributes(self) -> frozenset[str]:
        return self.required | self.conditional | self.recommended | self.opt_in


class SpanConvention(Levels):
    operations: frozenset[str]
    kinds: tuple[str, ...]
    """Allowed span kinds, the usual one first."""
    name: str
    """The span's name, with `{attribute}` for values; what is not known is left out."""


class MetricConvention(Levels):
    instrument: Literal["counter", "histogram"]
    unit: str
    operations: frozenset[str]
    """Spans that it is measured on."""
    buckets: tuple[float, ...] = ()
    """Explicit boundaries that the conventions advise."""


class Conventions(Record):
    repository: str
    commit: str
    committed: date
    types: dict[str, str]
    """Attribute to `string`, `int`, `double`, `boolean`, `strings` (a list) or `any` (has a shape)."""
    templates: dict[str, str]
    """Start of a name to the type of all attributes that go on with a dot."""
    values: dict[str, tuple[str, ...]]
    spans: tuple[SpanConvention, ...]
    shapes: dict[str, str]
    forms: dict[str, dict[str, str]]
    parts: dict[str, dict[str, str]]
    metrics: dict[str, MetricConvention]
    older_metrics: dict[str, MetricConvention]
    events: dict[str, Levels]
    renamed: dict[str, str]
    """Older name to today's, empty where it has no successor."""
    renamed_values: dict[str, dict[str, str]]

    def span(self, operation: str, kind: str) -> SpanConvention | None:
        """The convention for an operation, for that kind of span if it tells kinds apart."""
        found = [span for span in self.spans if operation in span.operations]
        return next((span for span in found if kind in span.kinds), found[0] if found else None)

    def type_of(self, attribute: str) -> str | None:
        known = self.types.get(attribute)
        return known or next(
            (kind for start, kind in self.templates.items() if attribute.startswith(f"{start}.")), None
        )


@cache
def conventions() -> Conventions:
    text = (resources.files("journeyman.traces") / "conventions.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    groups, buckets = table.pop("groups"), table.pop("buckets")
    attributes = table.pop("attributes")
    table["types"] = {name: kind for kind, names in attributes.items() for name in _members(names, groups)}
    table["spans"] = [_levels(span, groups) for span in table["spans"]]
    table["events"] = {name: _levels(event, groups) for name, event in table["events"].items()}
    for family in ("metrics", "older_metrics"):
        table[family] = {
            name: {**_levels(metric, groups), "buckets": buckets.get(metric.get("buckets"), ())}
            for name, metric in table[family].items()
        }
    return Conventions.model_validate(table)


def _levels(entry: dict[str, Any], groups: dict[str, list[str]]) -> dict[str, Any]:
    levels = Levels.model_fields.keys() & entry.keys()
    return entry | {level: _members(entry[level], groups) for level in levels}


def _members(names: list[str], groups: dict[str, list[str]]) -> list[str]:
    return [member for name in names for member in (groups[name[1:]] if name.startswith("@") else [name])]
