"""A paraphrase keeps names, numbers and quoted texts, and adds none."""

import pytest

from journeyman.training.data.writing.anchors import anchors, check_kept
from journeyman.training.data.writing.drafts import RefusedError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Which albums of Daft Punk cost 9.50?", ["9.50", "Daft", "Punk"]),
        ('Who wrote "Let it be"? Sir Paul?', ["Let it be", "Let", "Paul"]),
        ("How far is it to the A380 on 2024-02-29?", ["A380", "2024-02-29"]),
        ("NASA: who leads it?", ["NASA"]),
        ("is Zürich in Österreich?", ["Zürich", "Österreich"]),
        ("how much is it?", []),
    ],
)
def test_anchors_are_names_numbers_and_quoted_texts(text: str, found: list[str]) -> None:
    assert anchors(text) == found


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("How many albums has Queen?", "What is the number of Queen's albums?"),
        ("How many albums has Queen?", "Queen has made how many albums?"),
        ("Which cities have over 3,000 people?", "What are the cities of more than 3000 people?"),
        ("Who sang 'Waterloo' with Benny O'Brien?", "With Benny O'Brien, who was the singer of 'Waterloo'?"),
        ("What did the Jean-Luc study find?", "What were the results of the study by Jean Luc?"),
    ],
)
def test_other_words_around_them_are_a_paraphrase(original: str, paraphrase: str) -> None:
    check_kept(original, paraphrase)


@pytest.mark.parametrize(
    ("original", "paraphrase", "told"),
    [
        ("How many albums has Queen?", "How many albums are there?", "loses a name, number or quoted text: Queen"),
        ("Who led it in 1999?", "Who led it in 1998?", "loses a name, number or quoted text: 1999"),
        ("Is 'Jazz' an album?", "Is 'Hot Space' an album?", "loses a name, number or quoted text: Jazz"),
        ("How many albums has Queen?", "How many albums did Queen make in the UK?", "adds .*: UK"),
        ("How many are there?", "How many of the 12 are there?", "adds .*: 12"),
        ("Who is in the Queens office?", "Who is in the Queen office?", "loses .*: Queens"),
    ],
)
def test_what_is_lost_or_new_is_named(original: str, paraphrase: str, told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        check_kept(original, paraphrase)
