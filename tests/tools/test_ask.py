"""A question to a person is a tool; where there is no runtime to put it, it fails and says so."""

from pathlib import Path

from journeyman.agents.crew_file import load_crew
from journeyman.tools.ask import ask
from journeyman.tools.call import call_tool


async def test_without_a_runtime_nobody_can_be_asked() -> None:
    result = await call_tool(ask(), {"question": "Which one?"})
    assert (result.status, result.content) == ("failed", "ask: nobody can be asked here; go on with what is known")


def test_a_crew_file_names_it_like_any_other_tool(tmp_path: Path) -> None:
    crew = tmp_path / "crew.toml"
    crew.write_text(
        'name = "c"\n[memory]\nturns = 3\n[workers.w]\ntools = ["boss", "notes"]\n'
        '[tools.boss]\nuse = "ask"\ndescription = "Asks the boss."\n[tools.notes]\nuse = "memory"\nk = 2\n'
    )
    read = load_crew(crew)
    assert read.tools["boss"].asks
    assert read.tools["boss"].description == "Asks the boss."
    assert read.workers[0].tools == ("boss", "notes_remember", "notes_recall")
    assert read.memory is not None
    assert read.memory.turns == 3
