"""Near texts are found exactly: what an index answers is what comparing each with each would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.training.data.tasks.near import Texts, plain, shingles

WORDS = st.lists(
    st.sampled_from(["how", "many", "moons", "has", "mars", "venus", "the", "and"]), min_size=1, max_size=8
)
PLAIN = WORDS.map(" ".join)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("How many moons has Mars?", "how  many\nmoons has MARS"),
        ("“Who wrote it?”", '"who wrote it"'),
        ("\uff57ide letters", "wide letters"),
        ("¿Cuántas lunas, por favor?", "cuántas lunas por favor"),
    ],
)
def test_what_a_reader_sees_no_difference_in_is_one_text(text: str, same: str) -> None:
    assert plain(text) == plain(same)


@pytest.mark.parametrize(
    ("text", "other"), [("2 + 2", "2 - 2"), ("1.5 litres", "15 litres"), ("x < 3?", "x > 3?"), ("C++", "C")]
)
def test_what_changes_a_question_stays_in_its_plain_text(text: str, other: str) -> None:
    assert plain(text) != plain(other)


@given(st.lists(PLAIN, max_size=12), PLAIN, st.sampled_from([0.3, 0.5, 0.7, 0.8, 1.0]))
def test_an_index_finds_what_comparing_each_with_each_finds(texts: list[str], asked: str, least: float) -> None:
    index = Texts(texts)
    similar = [len(shingles(text) & shingles(asked)) / len(shingles(text) | shingles(asked)) for text in texts]
    assert dict(index.near(asked, least)) == {at: value for at, value in enumerate(similar) if value >= least}
    assert sorted(index.holding(asked)) == [at for at, text in enumerate(texts) if asked in text]
    assert sorted(index.within(asked)) == [at for at, text in enumerate(texts) if text in asked]
