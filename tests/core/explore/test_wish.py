"""What a page may ask for, and what it may not."""

from __future__ import annotations

import json

import pytest

from distk.errors import UsageError
from distk.explore.wish import LONGEST, Start, Wish, read_rewrite, read_wish


def test_everything_that_a_page_sends_is_read() -> None:
    told = {
        "start": {"item": 3},
        "other": {"draw": 7},
        "swapped": ["z"],
        "share": 0.25,
        "moves": {"z": {"0": 1.5, "2": -1}},
        "classes": {"d": 2},
    }
    read = read_wish(json.loads(json.dumps(told)))
    assert read == Wish(Start(item=3), Start(draw=7), ("z",), 0.25, {"z": {0: 1.5, 2: -1.0}}, {"d": 2})
    assert read_wish({"start": {"sentence": " the  food\nwas good "}}).start.sentence == "the food was good"
    assert read_rewrite({"sentence": "good", "to": 1}) == ("good", 1)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("[]", "no JSON object"),
        ("null", "no JSON object"),
        ("{}", "no 'start'"),
        ('{"start": {"item": 1}, "file": "/etc/passwd"}', "'file', which is none of"),
        ('{"start": {}}', "one of them"),
        ('{"start": {"item": 1, "draw": 1}}', "one of them"),
        ('{"start": {"path": "x"}}', "'path', which is none of"),
        ('{"start": {"item": -1}}', "no whole number"),
        ('{"start": {"item": 1.0}}', "no whole number"),
        ('{"start": {"item": true}}', "no whole number"),
        ('{"start": {"draw": 99999999999999}}', "no whole number"),
        ('{"start": {"sentence": ""}}', "write one"),
        ('{"start": {"sentence": 3}}', "write one"),
        ('{"start": {"item": 1}, "share": 1.5}', "from 0 to 1"),
        ('{"start": {"item": 1}, "share": NaN}', "no number"),
        ('{"start": {"item": 1}, "swapped": "z"}', "a list of names"),
        ('{"start": {"item": 1}, "moves": []}', "JSON objects"),
        ('{"start": {"item": 1}, "moves": {"z": 3}}', "JSON objects"),
        ('{"start": {"item": 1}, "moves": {"z": {"-1": 3}}}', "no number of a dimension"),
        ('{"start": {"item": 1}, "moves": {"z": {"0": 1e999}}}', "no number from"),
        ('{"start": {"item": 1}, "moves": {"z": {"0": "1"}}}', "no number from"),
        ('{"start": {"item": 1}, "classes": {"d": -1}}', "no whole number"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(told: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_wish(json.loads(told))
    assert words in str(refused.value)


def test_a_sentence_has_an_end() -> None:
    with pytest.raises(UsageError, match="too long"):
        read_wish({"start": {"sentence": "a" * (LONGEST + 1)}})
    with pytest.raises(UsageError, match="no whole number"):
        read_rewrite({"sentence": "a", "to": None})
