"""What `journeyman data` prints for a person."""

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Column, Table
from rich.text import Text

from journeyman.runtime.console import out
from journeyman.traces.reports.wording import count, line, visible
from journeyman.training.data.datasets.card import Card, Lengths, card_path
from journeyman.training.data.datasets.check import Checked
from journeyman.training.data.datasets.diff import Difference
from journeyman.training.data.datasets.shelf import KnownDataset, Listed
from journeyman.training.data.datasets.shown import MaskedReply, RowLine, WholeRow

TEXT = 60
"""Letters of a prompt or a reply in a table."""
SHOWN = 10
"""Rows of one fault, or numbers of rows, that are shown; `--json` has all."""
LEARNED = "bold green"
LISTED = ("digest", "kind", "rows", "agents", "origins", "state")


def show_list(listed: Sequence[Listed]) -> None:
    if not listed:
        out.print("no datasets: `journeyman mine` writes one")
        return
    # A name is told whole, for it is what the other commands take.
    table = Table(Column("dataset", overflow="fold"), *LISTED, box=None)
    for each in listed:
        card = each.card
        of_rows = ("", "", "", "") if card is None else (card.kind, f"{card.rows:,}", *_names(card))
        table.add_row(Text(visible(each.path.name)), (each.digest or "")[:12], *map(Text, of_rows), each.state)
    out.print(table)
    for each in listed:
        if each.fault is not None:
            out.print(each.fault, style="yellow", markup=False, soft_wrap=True)


def show_lines(lines: Sequence[RowLine], limit: int, rows: int) -> None:
    table = Table("row", "origin", "policy", "family", "weight", "tokens", "asked", "learned", box=None)
    for each in lines[:limit]:
        whose = (each.origin or "", ", ".join(each.policies), each.family or "")
        numbers = (f"{each.weight:g}", "" if each.tokens is None else f"{each.tokens:,}")
        texts = (each.asked, each.replied)
        table.add_row(str(each.number), *map(_cell, (*whose, *numbers)), *(_cell(line(text)[:TEXT]) for text in texts))
    out.print(table)
    more = f"; {limit} are shown: --limit N shows more" if len(lines) > limit else ""
    out.print(f"{len(lines):,} of {count(rows, 'row')}{more}")


def show_row(whole: WholeRow) -> None:
    texts = ("messages", "completion", "tool_calls", "tools", "chosen", "rejected", "text")
    ids = ("prompt_token_ids", "token_ids")
    for name, value in whole.values.items():
        if name == "tools" and isinstance(value, list):
            out.print(Text("tools: ").append(line(", ".join(str(tool.get("name")) for tool in value))), soft_wrap=True)
        if name not in (*texts, *ids):
            out.print(Text(f"{name}: ").append(visible(str(value))), soft_wrap=True)
    if whole.without_tokens is not None:
        out.print(whole.without_tokens, style="yellow", markup=False, soft_wrap=True)
    for masked in whole.masked:
        out.print()
        out.print(_head(masked), style="bold")
        out.print(_marked(masked), soft_wrap=True)


def show_diff(found: Difference) -> None:
    out.print(f"{count(found.same, 'row')} the same, {len(found.came):,} came, {len(found.went):,} went")
    for what, numbers in (("came", found.came), ("went", found.went)):
        if numbers:
            out.print(f"{what}: {_some(numbers)}")
    for row in found.changed[:SHOWN]:
        out.print(f"changed: row {row.before}, now {row.after}: {', '.join(row.fields)}", markup=False, soft_wrap=True)
    if len(found.changed) > SHOWN:
        out.print(f"{len(found.changed):,} changed: --json has all")


def show_card(known: KnownDataset) -> None:
    card = known.card
    out.print(f"{known.path}", markup=False, soft_wrap=True)
    if known.state == "no card":
        out.print(f"it has no card ({card_path(known.path).name}): this is what its rows tell", markup=False)
    table = Table(box=None, show_header=False)
    for name, value in _told(card):
        if value:
            table.add_row(name, Text(value))
    out.print(table)


def show_checked(checked: Checked) -> None:
    if not checked.findings:
        out.print(f"nothing found in {count(checked.rows, 'row')}")
        return
    for fault, number in checked.counts.items():
        out.print(f"{fault}: {count(number, 'row')}", style="bold")
        those = [finding for finding in checked.findings if finding.fault == fault]
        for finding in those[:SHOWN]:
            out.print(f"  row {finding.row}: {visible(finding.said)}", markup=False, soft_wrap=True)
        if len(those) > SHOWN:
            out.print(f"  {len(those) - SHOWN:,} more: --json has all")
    wrong = len({finding.row for finding in checked.findings})
    out.print(f"{wrong:,} of {count(checked.rows, 'row')}")


def _told(card: Card) -> Iterable[tuple[str, str]]:
    made = "" if card.journeyman is None else f"journeyman {card.journeyman}"
    options = " · ".join(f"{name}={value}" for name, value in card.made_by.items() if value is not None)
    yield from (("digest", card.digest), ("kind", card.kind), ("rows", f"{card.rows:,}"))
    yield "from", f"{count(card.runs, 'run')}, {count(card.spans, 'span')}"
    for name in ("agents", "origins", "policies", "families", "purposes"):
        yield name, _counts(getattr(card, name))
    yield "weight", f"{card.weight:g}"
    for name, lengths in (("prompt tokens", card.prompt_tokens), ("reply tokens", card.reply_tokens)):
        yield name, "" if lengths is None else _length(lengths)
    yield "letters", _length(card.letters)
    yield "prompt forms", ", ".join(form[:12] for form in card.prompt_forms)
    yield "refused", _counts(card.refused)
    yield from (("note", note) for note in card.notes)
    redact = "" if card.redact is None else f"; blacked out: {', '.join(card.redact) or 'nothing'}"
    yield "content", "" if card.content is None else f"{card.content}{redact}; {card.redacted_rows:,} rows redacted"
    yield from (("made by", made), ("options", options))


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{line(name)} {number:,}" for name, number in counted.items())


def _length(lengths: Lengths) -> str:
    return (
        f"{lengths.total:,} in {count(lengths.measured, 'text')}; median {lengths.median:,}, P90 {lengths.p90:,}, "
        f"longest {lengths.longest:,}"
    )


def _names(card: Card) -> tuple[str, str]:
    return ", ".join(map(line, card.agents)), _counts(card.origins)


def _head(masked: MaskedReply) -> str:
    tokens = any(piece.token_id is not None for piece in masked.pieces)
    what = f"{masked.learned:,} of {count(len(masked.pieces), 'token')} learned" if tokens else "as text"
    return f"{masked.side} ({what}; what is learned stands between » and «)"


def _marked(masked: MaskedReply) -> Text:
    """The texts one after another; tokens with a dot between those that are learned."""
    tokens = any(piece.token_id is not None for piece in masked.pieces)
    before = [visible(piece.text) for piece in masked.pieces if not piece.learned]
    learned = [visible(piece.text) for piece in masked.pieces if piece.learned]
    text = Text(("" if tokens else "\n").join(before), style="dim")
    if before and not tokens:
        text.append("\n")
    if not learned:
        return text
    return text.append(f"»{('·' if tokens else '').join(learned)}«", style=LEARNED)


def _some(numbers: Sequence[int]) -> str:
    more = f", and {len(numbers) - SHOWN:,} more: --json has all" if len(numbers) > SHOWN else ""
    return f"row{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers[:SHOWN]))}{more}"


def _cell(text: str) -> Text:
    return Text(line(text))
