"""What the README shows is what the examples hold."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_readme_shows_the_embedding_example_as_it_is() -> None:
    assert (ROOT / "examples" / "embed.py").read_text() in (ROOT / "README.md").read_text()
