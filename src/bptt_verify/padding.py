"""Cases of different sizes side by side: padded with zeros to one ceiling shape.

Most letters allow it: zero features, zero units, sequences with no cotangent change nothing. A
letter that is averaged over, or that a softmax runs along, does not. Which letters do is found by
trial (`bptt_verify.batch`), and a row that then fails has to fail by itself too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bptt_verify.shapes import Shape

Array = NDArray[Any]

ALL = slice(None)


def padded(
    arrays: Sequence[Array],
    shape: Shape,
    sizes: Sequence[Mapping[str, int]],
    ceiling: Mapping[str, int],
) -> Array:
    """The arrays, each of its own sizes, in one of the ceiling's; floats become float64.

    An axis such as "4H" is padded in each of its four blocks.
    """
    dtype = arrays[0].dtype
    kind = dtype if dtype.kind in "iub" else np.dtype(np.float64)
    out = np.zeros((len(arrays), *shape.sized(ceiling)), kind)
    place(out, arrays, shape, sizes, ceiling)
    return out


def place(
    out: Array,
    arrays: Sequence[Array],
    shape: Shape,
    sizes: Sequence[Mapping[str, int]],
    ceiling: Mapping[str, int],
) -> None:
    """Write the arrays, each of its own sizes, into one of the ceiling's."""
    if shape.plain:
        for k, (a, size) in enumerate(zip(arrays, sizes, strict=True)):
            out[_corner(shape, size, k)] = a
        return
    blocks = out.reshape(len(out), *_block_shape(shape, ceiling))  # "4H" is two axes, 4 and H
    for k, (a, size) in enumerate(zip(arrays, sizes, strict=True)):
        blocks[_corner(shape, size, k)] = a.reshape(_block_shape(shape, size))


def inside(
    shape: Shape, sizes: Sequence[Mapping[str, int]], ceiling: Mapping[str, int]
) -> NDArray[np.bool_]:
    """Which entries of arrays of the ceiling's sizes are those of each case's own."""
    blocks = (len(sizes), *_block_shape(shape, ceiling))
    found = np.ones(blocks, np.bool_)
    axis = 0
    for times, letter in shape.axes:
        axis += 2 if times > 1 and letter else 1
        if letter:
            own = np.array([size[letter] for size in sizes])
            below = np.arange(ceiling[letter]) < own[:, None]
            along = [len(sizes), *(1,) * (found.ndim - 1)]
            along[axis] = ceiling[letter]
            found &= below.reshape(along)
    return found.reshape(len(sizes), *shape.sized(ceiling))


def cropped(array: Array, shape: Shape, sizes: Mapping[str, int]) -> Array:
    """The part of one padded array that belongs to sizes below the ceiling."""
    if shape.plain:
        return array[_corner(shape, sizes)]
    ceiling = {
        letter: n // times
        for (times, letter), n in zip(shape.axes, array.shape, strict=True)
        if letter
    }
    blocks = array.reshape(_block_shape(shape, ceiling))
    return blocks[_corner(shape, sizes)].reshape(shape.sized(sizes))


def _block_shape(shape: Shape, sizes: Mapping[str, int]) -> tuple[int, ...]:
    found: list[int] = []
    for times, letter in shape.axes:
        found += [times] if times > 1 and letter else []
        found += [sizes[letter] if letter else times]
    return tuple(found)


def _corner(shape: Shape, sizes: Mapping[str, int], *before: int) -> tuple[int | slice, ...]:
    if shape.plain:
        own = [slice(sizes[letter]) if letter else ALL for _, letter in shape.axes]
    else:
        own = [slice(n) for n in _block_shape(shape, sizes)]
    return (*before, *own)
