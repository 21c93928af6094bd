import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt.compiled.machine import TALLEST, lanes
from manual_bptt.compiled.product import pack, product, tallest

# The product of small whole numbers is exact, so it has to be equal to the last bit; and nothing
# beside the result may be touched.


@st.composite
def problems(draw):
    dtype = np.dtype(draw(st.sampled_from(["f4", "f8"])))
    m, k = draw(st.integers(1, 3 * TALLEST)), draw(st.integers(1, 20))
    n = draw(st.integers(1, 12 * lanes(dtype.itemsize)))
    return dtype, m, n, k, draw(st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("ready", [False, True])
@given(problem=problems(), more=st.integers(0, TALLEST))
def test_it_is_the_product_and_touches_nothing_else(problem, more, ready, transposed, add):
    dtype, m, n, k, seed = problem
    rng = np.random.default_rng(seed)
    many = lanes(dtype.itemsize)
    whole = -(-n // many) * many
    A, B = (rng.integers(-9, 10, shape).astype(dtype) for shape in ((m, k), (k, n)))
    C = rng.integers(-9, 10, (m, whole + 3)).astype(dtype)
    a = np.ascontiguousarray(A.T if transposed else A)
    tall = min(TALLEST, tallest(m) + more)  # the factor may be packed for taller tiles
    row, step = (1, m) if transposed else (k, 1)
    if ready:
        b, b_step = np.zeros(k * whole, dtype), 0
        pack(B.reshape(-1), 1, n, 1, k, n, tall, b)
    else:
        b, b_step = np.pad(B, ((0, 0), (0, whole - n))), whole
    found = np.concatenate([np.full(5, 7), C.reshape(-1)]).astype(dtype)
    arguments = a.reshape(-1), 0, row, step, b.reshape(-1), 0, b_step, found, 5, whole + 3
    product(*arguments, m, whole, k, tall, add)

    right = C.copy()
    right[:, :n] = A @ B + (C[:, :n] if add else 0)
    right[:, n:whole] = C[:, n:whole] if add else 0
    assert np.array_equal(found[:5], [7] * 5)
    np.testing.assert_array_equal(found[5:].reshape(C.shape), right)


@given(m=st.integers(1, 1000))
def test_tiles_are_of_about_the_same_number_of_rows(m):
    assert tallest(m) <= TALLEST
    assert -(-m // tallest(m)) == -(-m // TALLEST)
