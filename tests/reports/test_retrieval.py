"""Retrieval finds what is written in any script, however its letters are encoded.

People reported that a search over Chinese, Japanese or Thai texts stays silent because the whole sentence counts as one
word, that vowel signs cut Hindi words to pieces, and that wide, joined or decomposed letters match nothing.
"""

import pytest

from journeyman.tools.retrieve import retrieve

NOTHING = "nothing found"


@pytest.mark.parametrize(
    ("document", "query"),
    [
        ("低头思故乡", "故乡"),  # run-llama/llama_index#13866
        ("東京タワーは高い塔です", "東京タワー"),
        ("我们的退款政策是三十天", "退款"),
        ("서울은 한국의 수도이다", "서울"),
        ("ประเทศไทยมีภาษาไทย", "ภาษา"),
        ("山", "山"),
        ("富士山に登る", "山"),
        ("iPhone15の使い方", "iphone15"),
        ("価格はＡＢＣ１２３です", "abc123"),
        ("ｶﾞｲﾄﾞを読む", "ガイド"),
        ("かﾞ", "が"),
        ("ﬁle ﬂow", "file"),
        ("cafe\u0301 menu", "café"),
        ("Straße 5", "STRASSE"),
        ("ΟΔΥΣΣΕΥΣ", "Οδυσσευς"),
        ("İstanbul", "istanbul"),
        ("हिन्दी भाषा", "भाषा"),
        ("क्\u200dष", "क्ष"),
        ("co\u00adoperate", "cooperate"),
        ("x² + 1", "x2"),
    ],
)
def test_a_word_is_found_however_it_is_written(document: str, query: str) -> None:
    assert retrieve([document, "something else"]).function(query) == document


@pytest.mark.parametrize(
    ("document", "query"),
    [
        ("動向に関する報告", "国際標準化"),  # LLMQuant/quant-mind#146: others came back, with a score of 0.
        ("京都の寺", "東京"),
        ("हिन्दी भाषा", "हद"),
        ("किताब", "ब"),
        ("กา", "ก่า"),
        ("cafe", "café"),
        ("नी", "न"),
    ],
)
def test_a_part_that_is_no_word_is_not_found(document: str, query: str) -> None:
    assert retrieve([document, "something else"]).function(query) == NOTHING


def test_the_longest_match_of_writing_without_spaces_comes_first() -> None:
    documents = ["東大の東側に京が住む", "東京都の人口", "大阪の人口"]
    assert retrieve(documents, k=1).function("東京都の人口は") == "東京都の人口"
