"""Locks of runs: one holder at a time, and none of them outlives its process."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from journeyman.runtime.store.locks import FileLocks, RunBusyError, check_run_id
from journeyman.traces.errors import ConfigError

HOLDER = """
import asyncio, sys, time
from pathlib import Path
from journeyman.runtime.store.locks import FileLocks

async def hold():
    async with FileLocks(Path(sys.argv[1])).lock("r1"):
        print("held", flush=True)
        time.sleep(60)

asyncio.run(hold())
"""


async def test_a_held_run_is_refused_to_a_second_task(tmp_path: Path) -> None:
    async with FileLocks(tmp_path).lock("r1"):
        with pytest.raises(RunBusyError, match="run r1 goes on elsewhere"):
            async with FileLocks(tmp_path).lock("r1"):
                pass
        async with FileLocks(tmp_path).lock("r2"):
            pass


async def test_a_run_that_was_let_go_can_be_held_again_and_leaves_no_file(tmp_path: Path) -> None:
    def files() -> list[str]:
        return [path.name for path in tmp_path.iterdir()]

    for _ in range(3):
        async with FileLocks(tmp_path).lock("r1"):
            assert files() == ["r1"]
    assert files() == []


async def test_a_short_look_at_a_lock_does_not_refuse_a_start(tmp_path: Path) -> None:
    async def look() -> None:
        async with FileLocks(tmp_path).lock("r1"):
            await asyncio.sleep(0.05)

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    async with FileLocks(tmp_path).lock("r1"):
        assert looking.done()


def test_many_threads_hold_a_run_one_after_the_other(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    async def hold(number: int) -> None:
        async with FileLocks(tmp_path).lock("r1", patience_s=20.0):
            inside.append(number)
            most.append(len(inside))
            await asyncio.sleep(0.001)
            inside.remove(number)

    threads = [threading.Thread(target=asyncio.run, args=(hold(number),)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 24


async def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    with pytest.raises(RunBusyError):
        async with FileLocks(tmp_path).lock("r1"):
            pass
    holder.kill()
    await holder.wait()
    async with FileLocks(tmp_path).lock("r1"):
        pass


@pytest.mark.parametrize("run_id", ["", ".setup", "../r1", "a b", "a/b", "é", "x" * 129])
def test_what_can_name_no_run_is_refused(run_id: str) -> None:
    with pytest.raises(ConfigError, match="up to 128 letters"):
        check_run_id(run_id)


def test_usual_ids_can_name_a_run() -> None:
    for run_id in ("3fa9c1", "order-17.retry_2", "user:ann:7", "A" * 128):
        assert check_run_id(run_id) == run_id
