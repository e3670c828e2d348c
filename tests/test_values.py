"""Types of flag values: what they take, what they refuse, and in which words."""

import argparse
import math

import hypothesis
import pytest
from hypothesis import strategies as st

from runtime.values import auto_or, number, numbers, whole, wholes


@hypothesis.given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-60, 60))
def test_whole_numbers_are_taken_within_their_range_only(low, high, value):
    kind = whole(low, high)
    if low <= value <= high:
        assert kind(str(value)) == value
    else:
        with pytest.raises(argparse.ArgumentTypeError, match=f"got '{value}'"):
            kind(str(value))


def test_auto_is_a_word_and_all_else_is_what_it_stands_beside():
    assert auto_or(whole(0, 5))("auto") == "auto" and auto_or(whole(0, 5))("3") == 3
    with pytest.raises(argparse.ArgumentTypeError, match="got '6'"):
        auto_or(whole(0, 5))("6")


@hypothesis.given(st.floats(-10, 10), st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_are_finite_and_within_their_range(low, value):
    for kind, fits in ((number(low), value >= low), (number(above=low), value > low), (number(high=low), value <= low)):
        if fits and math.isfinite(value):
            assert kind(repr(value)) == value
        else:
            with pytest.raises(argparse.ArgumentTypeError):
                kind(repr(value))


@pytest.mark.parametrize(("kind", "text", "words"), [
    (whole(1), "1.5", "expected a whole number of at least 1, got '1.5'"),
    (whole(), "99999999999999999999", "expected a whole number of at least 0"),
    (whole(2, 254), "255", "expected a whole number from 2 to 254"),
    (number(0, 1), "2", "expected a number from 0 to 1"),
    (number(above=0, high=10), "0", "expected a number above 0, at most 10"),
    (numbers(2, "0.5,0.5"), "1", "expected 2 numbers such as 0.5,0.5, got '1'"),
    (numbers(2, "0.5,0.5"), "nan,1", "expected 2 numbers"),
    (wholes(4, "COLUMN,ROW,WIDTH,HEIGHT"), "1,2,3,-4", "expected COLUMN,ROW,WIDTH,HEIGHT, whole numbers"),
])
def test_what_is_refused_is_told_with_what_was_expected(kind, text, words):
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        kind(text)
    assert words in str(refusal.value)


def test_several_numbers_become_a_tuple():
    assert numbers(2, "0.5,0.5")("1,-2.5") == (1.0, -2.5) and wholes(4, "A,B,C,D")("1,2,3,4") == (1, 2, 3, 4)
