"""Texts: kept once, whole or not at all, and never taken from somebody who counts on them."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from time import time

import pytest

from journeyman.traces.capture.texts import Texts, filesystem_of, is_large
from journeyman.traces.errors import ConfigError

TEXT = "You look things up. " * 50


def test_a_text_is_kept_once_by_its_digest(tmp_path: Path) -> None:
    texts = Texts(tmp_path)
    digest = texts.keep(TEXT)
    assert digest == texts.keep(TEXT) == Texts(tmp_path).keep(TEXT) == sha256(TEXT.encode()).hexdigest()
    assert dict(Texts(tmp_path)) == {digest: TEXT}
    assert [path.name for path in (tmp_path / "texts").iterdir()] == [digest]


def test_a_text_that_is_not_what_its_digest_says_is_missing(tmp_path: Path) -> None:
    digest = Texts(tmp_path).keep(TEXT)
    (tmp_path / "texts" / digest).write_text(TEXT + "!")
    with pytest.raises(KeyError):
        Texts(tmp_path)[digest]
    assert Texts(tmp_path).get("0" * 64) is None


def test_what_is_kept_for_others_is_kept_here(tmp_path: Path) -> None:
    texts = Texts(tmp_path)
    assert texts.setdefault("0" * 64, "short") == "short"
    assert "0" * 64 in texts


def test_a_text_that_was_kept_again_meanwhile_is_not_removed(tmp_path: Path) -> None:
    digest = Texts(tmp_path).keep(TEXT)
    os.utime(tmp_path / "texts" / digest, (1, 1))
    cleaner, began = Texts(tmp_path), time() - 1
    Texts(tmp_path).keep(TEXT)  # Another process, for a span that it is about to write.
    assert not cleaner.remove(digest, unused_since=began)
    assert dict(Texts(tmp_path)) == {digest: TEXT}
    assert cleaner.remove(digest, unused_since=time() + 1)
    assert list(Texts(tmp_path)) == []
    with pytest.raises(KeyError):
        del cleaner[digest]


def test_a_full_disk_leaves_no_half_text(tmp_path: Path) -> None:
    code = f"""
import resource
from journeyman.traces.capture.texts import Texts
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
try:
    Texts({str(tmp_path)!r}).keep("x" * 1000)
except OSError:
    print("refused")
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "refused\n"
    assert list((tmp_path / "texts").iterdir()) == []


def test_only_large_texts_with_a_utf8_form_are_worth_a_file() -> None:
    assert is_large("x" * 256)
    assert not is_large("x" * 255)
    assert not is_large("x" * 300 + "\ud83d")


def test_a_url_of_an_unknown_kind_is_a_mistake_of_the_user() -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        filesystem_of("nowhere://bucket/prefix")
