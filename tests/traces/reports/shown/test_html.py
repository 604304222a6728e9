"""The page: whole in itself, the same each time, safe whatever the record holds."""

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from journeyman.traces.reports.report import Report, report
from journeyman.traces.reports.shown.html import html
from journeyman.traces.reports.success import wilson

CHAT = {"operation": "chat"}
EVIL = '<script>alert("$x$")</script> & \x1b[2J 河'


@pytest.fixture
def found(runs: Any) -> Report:
    engine = {"journeyman.engine.queue_s": 0.1, "journeyman.engine.prefill_s": 0.2, "journeyman.engine.decode_s": 0.5}
    runs.add(
        {**CHAT, "engine": engine}, {"operation": "execute_tool"}, start_s=0.0, score=1.0, worker=EVIL, family=EVIL
    )
    runs.add({**CHAT, "error": "ModelError"}, start_s=90_000.0, status="failed", worker_status="failed")
    runs.add(*[CHAT] * 16, start_s=180_000.0, score=0.5)
    return report(runs.store, watts=20.0)


class Page(HTMLParser):
    """Checks that what is opened is closed, and gathers what might reach for something else."""

    VOID = frozenset({"meta", "path", "use", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in self.VOID or tag == "path":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_plots_and_tables_and_needs_nothing_from_elsewhere(found: Report) -> None:
    text = html(found)
    page = Page(text)
    assert text.count("<svg") == 7
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\((?!#)|@import|<script|<link|<img", text)
    outside = set(re.findall(r"https?://[^\"'<> ]+", text))
    assert outside <= {"http://www.w3.org/2000/svg"}
    for heading in ["How often tasks are solved", "Where it broke first", "How steps add up", "How long it takes"]:
        assert f"<h2>{heading}</h2>" in text
    assert "for each solved task, estimated" in text


def test_the_same_report_gives_the_same_page(found: Report) -> None:
    assert html(found) == html(found)


def test_what_the_record_holds_is_text_and_never_markup(found: Report) -> None:
    text = html(found)
    assert "alert" in text
    assert "<script" not in text and "\x1b" not in text
    assert 'alert("$x$")' in text.replace("&quot;", '"')


def test_each_plot_is_well_formed_and_no_two_share_an_id(found: Report) -> None:
    text = html(found)
    plots = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    ids = [element.get("id") for plot in plots for element in ElementTree.fromstring(plot).iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", "".join(plots)))
    assert targets <= set(ids)


def test_text_and_axes_take_the_colour_of_the_page(found: Report) -> None:
    plots = "".join(re.findall(r"<svg.*?</svg>", html(found), flags=re.DOTALL))
    assert "currentColor" in plots
    assert not re.search(r"#000000|#ffffff|fill: white", plots)


def test_a_report_of_no_runs_is_a_page_too(runs: Any) -> None:
    text = html(report(runs.store))
    Page(text)
    assert "no runs" in text


def test_the_interval_of_a_share_stays_within_0_and_1() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-3)
