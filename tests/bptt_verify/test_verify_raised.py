"""How an exception of the user's own code is told in a line."""

import json

import pytest

from bptt_verify.raised import SHOWN, in_words


def raised_by(act):
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        act()
    return in_words(caught.value)


def test_the_line_is_the_users_own_also_where_a_library_raised():
    assert "(test_verify_raised.py:" in raised_by(lambda: json.loads("{"))


def test_a_message_may_be_missing_or_long():
    def fails(*arguments):
        raise AssertionError(*arguments)

    assert raised_by(fails).startswith("AssertionError (test_")
    assert f"{'x' * SHOWN}… (test_" in raised_by(lambda: fails("x" * 2 * SHOWN))
