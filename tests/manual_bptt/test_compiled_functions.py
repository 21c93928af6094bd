import os

import numpy as np
import pytest
from numba import njit

from manual_bptt.compiled import functions
from manual_bptt.compiled.machine import BYTES, on_whole_vectors
from manual_bptt.compiled.readout import _largest

# How far exp, σ and tanh are from the right value, in ulp. In the nightly profile over every
# float32; here over one in some thousand of them, which hits every exponent hundreds of times.

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
STRIDE = 1 if NIGHTLY else 4_099  # a prime, so that all last digits occur
PIECE = 1 << 22


def loop(f):
    @njit(error_model="numpy")
    def run(x, y):
        for i in range(len(x)):
            y[i] = f(x[i])

    return run


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


RIGHT = {"exp": np.exp, "sigmoid": sigmoid, "tanh": np.tanh}
COMPILED = {name: loop(getattr(functions, name)) for name in RIGHT}


def every_float32():
    """All finite ones but for the stride, in pieces."""
    for first in range(0, 2**32, PIECE * STRIDE):
        bits = np.arange(first, min(2**32, first + PIECE * STRIDE), STRIDE, dtype=np.uint64)
        x = bits.astype(np.uint32).view(np.float32)
        yield x[np.isfinite(x)]


def error(name, x, wider):
    """The largest error in ulp of the right value, which is computed in a wider type."""
    found = np.empty_like(x)
    COMPILED[name](x, found)
    with np.errstate(over="ignore", under="ignore"):
        right = RIGHT[name](x.astype(wider))
        rounded = right.astype(x.dtype)
    finite = np.isfinite(rounded)
    assert np.array_equal(found[~finite], rounded[~finite])
    ulp = np.spacing(np.abs(rounded[finite])).astype(wider)
    return float((np.abs(found[finite] - right[finite]) / ulp).max(initial=0))


@pytest.mark.parametrize("name", RIGHT)
def test_every_float32_is_within_the_stated_error(name):
    worst = max(error(name, x, np.float64) for x in every_float32() if x.size)
    assert worst <= functions.ULP[name]["float32"]


@pytest.mark.parametrize("name", RIGHT)
def test_a_dense_grid_of_float64_is_within_the_stated_error(name):
    rng = np.random.default_rng(0)
    each = 10_000_000 if NIGHTLY else 200_000
    near = rng.uniform(-1, 1, each)
    wide = rng.uniform(-745, 709, each)
    middle = rng.uniform(-30, 30, each)
    small = np.exp2(rng.uniform(-1074, 0, each)) * rng.choice([-1, 1], each)
    worst = max(error(name, x, np.longdouble) for x in (near, wide, middle, small))
    assert worst <= functions.ULP[name]["float64"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RIGHT)
def test_ends_signs_and_nan_are_those_of_numpy(name, dtype):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30], dtype)
    found = np.empty_like(x)
    COMPILED[name](x, found)
    with np.errstate(over="ignore", under="ignore"):
        right = RIGHT[name](x)
    np.testing.assert_array_equal(found, right)
    assert np.array_equal(np.signbit(found[:2]), np.signbit(right[:2]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tanh_is_odd_to_the_last_bit(dtype):
    x = np.random.default_rng(0).standard_normal(10_000).astype(dtype)
    there, back = np.empty_like(x), np.empty_like(x)
    COMPILED["tanh"](x, there)
    COMPILED["tanh"](-x, back)
    assert np.array_equal(there, -back)


def test_loops_may_use_whole_vectors():
    @njit
    def doubled(a):
        on_whole_vectors()
        for j in range(len(a)):
            a[j] *= 2

    doubled(np.ones(3))
    (text,) = doubled.inspect_llvm().values()
    assert f'"prefer-vector-width"="{8 * BYTES}"' in text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 100])
def test_the_largest_is_found_wherever_it_stands(n, dtype):
    for at in range(n):
        z = np.full(n, -np.inf, dtype)
        z[at] = -3.5
        assert _largest(z) == -3.5
