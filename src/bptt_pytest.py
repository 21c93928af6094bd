"""pytest's options --bptt-cases and --bptt-seed.

Every pytest run of an environment loads its plugins, so this one stands outside of `bptt_verify`,
whose import brings JAX, and imports next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pytest


class Defaults(NamedTuple):
    """What `bptt_verify.assert_verified` takes where a test does not say."""

    cases: int = 200
    seed: int = 0


defaults = [Defaults()]
"""The last one counts; each pytest session puts its own on top while it runs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("bptt", "hand-written gradients (bptt_verify)")
    standard = Defaults()
    for name, default, what in (
        ("cases", standard.cases, "random cases for each pair and dtype"),
        ("seed", standard.seed, "the same seed draws the same cases"),
    ):
        group.addoption(
            f"--bptt-{name}", type=int, default=default, metavar="N", help=f"{what} [%(default)s]"
        )


def pytest_configure(config: pytest.Config) -> None:
    """Put the session's options on top. Raises `pytest.UsageError` for one that is too small."""
    given = Defaults(*(config.getoption(f"--bptt-{name}") for name in Defaults._fields))
    for name, value, low in zip(Defaults._fields, given, (1, 0), strict=True):
        if value < low:
            import pytest

            raise pytest.UsageError(f"--bptt-{name}: expected at least {low}, got {value}")

    def restore() -> None:
        defaults.pop()

    defaults.append(given)
    config.add_cleanup(restore)
