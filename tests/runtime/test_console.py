"""Progress where stderr is no terminal: lines that say where long work is."""

from time import monotonic, sleep

import pytest

from journeyman.runtime.console import notes, out, progress, runs_done

Captured = pytest.CaptureFixture[str]


def lines_of(capsys: Captured, wanted: int) -> list[str]:
    """The lines told so far, once there are so many."""
    told, deadline = "", monotonic() + 10
    while told.count("\n") < wanted and monotonic() < deadline:
        sleep(0.01)
        told += capsys.readouterr().err
    return told.splitlines()


def test_a_line_says_what_is_done_of_all_and_the_time_left(capsys: Captured) -> None:
    with progress(every_s=0.05) as bar:
        row = bar.add_task("training, loss 0.412, step", total=40)
        for _ in range(2):
            bar.advance(row, 4)
            sleep(0.02)
        (line, *_) = lines_of(capsys, 1)
    assert line.startswith("training, loss 0.412, step 8 of 40, 0.0") and " s so far, about " in line
    assert line.endswith(" left")


def test_work_that_makes_no_step_says_so_all_the_same(capsys: Captured) -> None:
    with progress(every_s=0.02) as bar:
        bar.add_task("loading the model", total=None)
        lines = lines_of(capsys, 3)
    assert len(lines) >= 3 and all(line.startswith("loading the model, 0.") for line in lines)


def test_what_is_done_is_told_no_more_and_quick_work_tells_nothing(capsys: Captured) -> None:
    with progress(every_s=0.02) as bar:
        bar.advance(bar.add_task("[bold]first[/bold], task", total=1))
        bar.add_task("second, task", total=3)
        assert {line.split(",")[0] for line in lines_of(capsys, 2)} == {"second"}
    with progress(every_s=5.0) as bar:
        bar.advance(bar.add_task("third, task", total=1))
    assert capsys.readouterr().err == ""


def test_work_that_fails_tells_no_more(capsys: Captured) -> None:
    with pytest.raises(ValueError, match="broke"), progress(every_s=0.01) as bar:
        bar.add_task("task", total=2)
        raise ValueError("it broke")
    capsys.readouterr()
    sleep(0.05)
    assert capsys.readouterr().err == ""


def test_of_recorded_runs_each_counts_once(capsys: Captured) -> None:
    with runs_done("mining, run", 3, every_s=0.02) as tell:
        for trace_id in ("a", "b", "a", "b"):
            tell(trace_id)
        (line, *_) = lines_of(capsys, 1)
    assert line.startswith("mining, run 2 of 3, ")


def test_no_text_of_a_user_becomes_an_emoji(capsys: Captured) -> None:
    for console in (out, notes):
        with console.capture() as told:
            console.print("a:b:c", markup=False)
        assert told.get() == "a:b:c\n"
