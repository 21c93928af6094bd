"""Shapes by letter: "T B H", "4H D", "2 H", "" for a scalar."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

_AXIS = re.compile(r"(?P<times>[1-9]\d*)?(?P<letter>[A-Za-z_]\w*)?")


class Shape:
    """A shape whose axes are letters, multiples of letters ("4H") or numbers.

    Raises `ValueError` for anything else, naming the axis that cannot be read.
    """

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split())
        self.axes: list[tuple[int, str | None]] = []
        for axis in text.split():
            found = _AXIS.fullmatch(axis)
            if not found:
                raise ValueError(
                    f"shape {text!r}: expected letters, numbers or multiples such as '4H', "
                    f"separated by spaces; got {axis!r}"
                )
            self.axes.append((int(found["times"] or 1), found["letter"]))

        self.plain = all(times == 1 or not letter for times, letter in self.axes)
        """No axis is a multiple of a letter."""

    @property
    def letters(self) -> list[str]:
        """The letters, each once, in order."""
        return list(dict.fromkeys(letter for _, letter in self.axes if letter))

    @property
    def is_recurrent(self) -> bool:
        """A matrix from a size to (a multiple of) the same size: it may carry a state."""
        return (
            len(self.axes) == 2
            and self.axes[0][1] is not None
            and self.axes[1] == (1, self.axes[0][1])
        )

    def sized(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The numbers, once each letter has one."""
        return tuple([times * sizes[letter] if letter else times for times, letter in self.axes])


def letters(shapes: Iterable[Shape]) -> list[str]:
    """All letters of these shapes, each once, in order of appearance."""
    return list(dict.fromkeys(letter for shape in shapes for letter in shape.letters))


parsed = cache(Shape)
"""`Shape` of a text, read once."""
