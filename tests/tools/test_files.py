"""The file tools stay within their folder, whatever a model writes as a path."""

import os
import threading
from pathlib import Path

import pytest

from journeyman.tools.call import call_tool
from journeyman.tools.files import files
from journeyman.tools.tool import Tool, toolbox
from journeyman.traces.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "a.md").write_text("one\nTwo\nthree\n")
    (root / "deep" / "b.txt").write_text("the second is two\n")
    (root / "deep" / "er" / "c.bin").write_bytes(b"\0\1two")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("token = two")
    (tmp_path / "secret").write_text("two secrets")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(root / "pipe")
    return root


def tools(folder: Path, *, write: bool = False, max_bytes: int = 1_000_000) -> dict[str, Tool]:
    return {tool.name: tool for tool in files(folder, write=write, max_bytes=max_bytes)}


async def said(tool: Tool, **arguments: object) -> str:
    return (await call_tool(tool, arguments)).content


async def test_a_folder_is_listed_with_sizes_and_without_what_is_no_regular_file(folder: Path) -> None:
    assert await said(tools(folder)["list"]) == "a.md 14\ndeep/b.txt 18\ndeep/er/c.bin 5"
    assert await said(tools(folder)["list"], path="deep/er") == "deep/er/c.bin 5"


async def test_a_file_is_read_whole_or_by_lines(folder: Path) -> None:
    read = tools(folder)["read"]
    assert await said(read, path="a.md") == "one\nTwo\nthree"
    assert await said(read, path="./a.md", first=2, last=2) == "Two"
    assert "has 3 lines" in await said(read, path="a.md", first=4)
    assert "last=1 comes before first=2" in await said(read, path="a.md", first=2, last=1)


async def test_a_search_names_file_and_line(folder: Path) -> None:
    search = tools(folder)["search"]
    assert await said(search, text="two") == "a.md:2: Two\ndeep/b.txt:1: the second is two"
    assert await said(search, text="(two") == "nothing found"


@pytest.mark.parametrize(
    "path",
    [
        *("../secret", "deep/../../secret", "/etc/passwd", "out", "up/secret", "up", "a.md/x", "", ".git/config"),
        *("\0", "pipe", "deep", "none.txt", "deep/er/c.bin", "x" * 5000),
    ],
)
async def test_what_leads_out_or_is_no_text_is_not_read(folder: Path, path: str) -> None:
    called = await call_tool(tools(folder)["read"], {"path": path})
    assert called.status == "failed"
    assert "read: " in called.content and "\n" not in called.content
    assert "secrets" not in called.content and "failed:" not in called.content


async def test_a_link_to_the_outside_is_neither_listed_nor_searched(folder: Path) -> None:
    assert (await call_tool(tools(folder)["list"], {"path": "up"})).status == "failed"
    assert "secret" not in await said(tools(folder)["search"], text="secret")


async def test_a_folder_swapped_for_a_link_while_it_is_read_gives_nothing_away(folder: Path, tmp_path: Path) -> None:
    """The race that a check of the resolved path alone would lose."""
    swapped = folder / "swapped"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("secret")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            swapped.mkdir()
            (swapped / "f").write_text("public")
            (swapped / "f").unlink()
            swapped.rmdir()
            swapped.symlink_to(outside, target_is_directory=True)
            swapped.unlink()

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        read = tools(folder)["read"]
        seen = {await said(read, path="swapped/f") for _ in range(500)}
    finally:
        stop.set()
        swapper.join()
    assert not any("secret" in one for one in seen)


async def test_writing_must_be_asked_for_and_replaces_in_one_step(folder: Path) -> None:
    assert "write" not in tools(folder)
    write = tools(folder, write=True)["write"]
    assert await said(write, path="new/deep/d.txt", text="déjà") == "wrote 6 bytes to new/deep/d.txt"
    assert (folder / "new/deep/d.txt").read_text() == "déjà"
    with (folder / "a.md").open() as before:
        await said(write, path="a.md", text="four\n")
        assert before.read() == "one\nTwo\nthree\n"
    assert (folder / "a.md").read_text() == "four\n"
    assert await said(tools(folder)["list"], path=".") == "a.md 5\ndeep/b.txt 18\ndeep/er/c.bin 5\nnew/deep/d.txt 6"


@pytest.mark.parametrize("name", ["漢" * 85, "a" * 255])
async def test_a_name_may_be_as_long_as_the_file_system_takes_it(folder: Path, name: str) -> None:
    made = tools(folder, write=True)
    assert await said(made["write"], path=name, text="here") == f"wrote 4 bytes to {name}"
    assert await said(made["read"], path=name) == "here"


async def test_a_file_that_is_replaced_keeps_its_mode(folder: Path) -> None:
    (folder / "a.md").chmod(0o700)
    (folder / "deep/b.txt").chmod(0o600)
    write = tools(folder, write=True)["write"]
    for path in ("a.md", "deep/b.txt"):
        await said(write, path=path, text="new")
    assert [(folder / path).stat().st_mode & 0o777 for path in ("a.md", "deep/b.txt")] == [0o700, 0o600]


@pytest.mark.parametrize(
    "path", ["../new", "/elsewhere/new", "up/new", "out", "pipe", "deep", "a.md/new", ".git/config", "."]
)
async def test_nothing_is_written_outside(folder: Path, tmp_path: Path, path: str) -> None:
    called = await call_tool(tools(folder, write=True)["write"], {"path": path, "text": "gotcha"})
    assert called.status == "failed" and "failed:" not in called.content
    assert (tmp_path / "secret").read_text() == "two secrets"
    assert not (tmp_path / "new").exists()
    assert (folder / "out").is_symlink()


async def test_sizes_are_limited(folder: Path) -> None:
    small = tools(folder, write=True, max_bytes=10)
    assert "at most 10 are read" in await said(small["read"], path="a.md")
    assert "write at most 10" in await said(small["write"], path="n", text="x" * 11)
    assert await said(small["search"], text="two") == "nothing found"
    for number in range(520):
        (folder / f"n{number:03}").touch()
    listed = (await said(tools(folder)["list"])).splitlines()
    assert (len(listed), listed[-1]) == (501, "[the first 500 files; list a folder within]")


def test_a_crew_gives_them_the_name_of_the_folder(folder: Path) -> None:
    assert list(toolbox("notes", files(folder))) == ["notes_list", "notes_read", "notes_search"]
    with pytest.raises(ConfigError, match="is not a folder: name one"):
        files(folder / "none")
