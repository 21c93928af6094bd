"""The jaxpr interpreter: the same values as XLA, and a σ that is the scale of honest rounding."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from bptt_verify.noise import places
from bptt_verify.rounding import Rounding, decides
from bptt_verify.tolerance import multiplier

F64, F32 = np.dtype(np.float64), np.dtype(np.float32)


def run(f, *arguments, dtype=F64, seed=0):
    rounding = Rounding(dtype, places(np.random.default_rng(seed)), margin=32)
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(f)(*arguments)
        found = rounding.run(closed, [np.asarray(a)[None] for a in arguments])
        return rounding, [(value[0], sigma[0]) for value, sigma in found]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


A, B, M = normal(3, 4), normal(3, 4, seed=1), normal(4, 5, seed=2)
POSITIVE = np.abs(A) + 0.1
INTS = np.arange(12).reshape(3, 4) - 5

FUNCTIONS = {
    "arithmetic": (lambda a, b: (a + b) * a / (b + 3) - a, A, B),
    "scalar beside array": (lambda a: 1.0 - 2 * a, A),
    "matrix product": (lambda a, m: a @ m, A, M),
    "batched product": (lambda a: jnp.einsum("bij,bkj->bik", a, a), normal(2, 3, 4)),
    "outer product": (lambda a, b: jnp.einsum("ij,kl->ijkl", a, b), A, B),
    "tensordot": (lambda a, b: jnp.tensordot(a, b, 2), A, B),
    "elementary": (lambda x: jnp.exp(x) + jnp.log(x) + jnp.tanh(x) + jnp.sqrt(x), POSITIVE),
    "more elementary": (lambda x: jnp.sin(x) * jnp.cos(x) + jnp.log1p(x) - jnp.expm1(x), POSITIVE),
    "powers": (lambda x: x**3 + x**2.5 + 1 / jnp.sqrt(x) + lax.rsqrt(x), POSITIVE),
    "logistic": (lambda x: jax.nn.sigmoid(100 * x), A),
    "softmax": (lambda x: jax.nn.softmax(1e4 * x), A),
    "log softmax": (lambda x: jax.nn.log_softmax(x), A),
    "logsumexp": (lambda x: jax.nn.logsumexp(x, axis=0), A),
    "relu": (jax.nn.relu, A),
    "gelu": (jax.nn.gelu, A),
    "softplus": (jax.nn.softplus, A),
    "silu": (jax.nn.silu, A),
    "elu": (jax.nn.elu, A),
    "reductions": (lambda x: (x.sum(0), x.mean(1), x.max(0), x.min(1), x.prod(0)), A),
    "booleans": (lambda x: ((x > 0).any(0), (x > 0).all(1), ~(x > 0) & (x < 1) | (x == 0)), A),
    "where": (lambda a, b: jnp.where(a > b, a, -b), A, B),
    "select of three": (lambda i, a, b: lax.select_n(i % 3, a, b, a * b), abs(INTS), A, B),
    "clip": (lambda x: jnp.clip(x, -0.5, 0.5), A),
    "sign and abs": (lambda x: jnp.sign(x) * jnp.abs(x), A),
    "round": (lambda x: jnp.floor(x) + jnp.round(x), A),
    "integers": (lambda i: (i + 2, i * i, i // 3, i % 3, i == 1), INTS),
    "shapes": (lambda x: x.reshape(2, 6).T[None, ::2, ::-1].squeeze(0), A),
    "join": (lambda a, b: jnp.concatenate([a, b], axis=1) + jnp.stack([a, b]).reshape(3, 8), A, B),
    "stack": (lambda a, b: (jnp.stack([a, b]), jnp.stack([a, b, a], axis=1)), A, B),
    "split": (lambda x: jnp.split(x, [1, 3], axis=1), A),
    "pad": (lambda x: jnp.pad(x, ((1, 0), (0, 2))), A),
    "pad with holes": (lambda x: lax.pad(x, 7.0, ((1, 2, 1), (-1, 0, 2))), A),
    "one hot": (lambda i: jax.nn.one_hot(i, 4), INTS),
    "iota": (lambda x: x + lax.broadcasted_iota(jnp.float64, (3, 4), 1), A),
    "lookup": (lambda x, i: x[jnp.abs(i) % 3, 1], A, INTS),
    "scatter": (lambda x: x.at[1].add(2.0).at[:, 2].set(x[:, 0]), A),
    "dynamic slice": (lambda x, i: lax.dynamic_slice(x, (i[0, 5 % 4], 0), (2, 2)), A, INTS),
    "dynamic slice beyond the ends": (
        lambda x: [lax.dynamic_slice(x, at, (2, 2)) for at in ((9, -9), (-1, 1))],
        A,
    ),
    "dynamic update slice": (
        lambda x, b: [lax.dynamic_update_slice(x, b[:2, 1:3], at) for at in ((0, 1), (5, -5))],
        *(A, B),
    ),
    "cumulative": (lambda x: (jnp.cumsum(x, 1), jnp.cumprod(x, 0), lax.cummax(x)), A),
    "sort": (lambda x: (jnp.sort(x), jnp.argsort(x, axis=0), jnp.argmax(x, 1)), A),
    "callback": (lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x), A),
    "convolution": (lambda x, m: jnp.convolve(x[0], m[0]), A, M),
    "triangle": (lambda x: jnp.tril(x @ x.T), A),
    "scan": (lambda x: lax.scan(lambda c, y: (c * y + 1, jnp.tanh(c)), x[0], x), A),
    "reverse scan": (lambda x: lax.scan(lambda c, y: (c - y, c), x[0], x, reverse=True), A),
    "scan without steps": (lambda x: lax.scan(lambda c, y: (c + y, c), x[0], x[:0]), A),
    "fixed loop": (lambda x: lax.fori_loop(0, 5, lambda i, c: c * 0.5 + i, x), A),
    "while": (
        lambda x: lax.while_loop(
            lambda c: c[0] < 4, lambda c: (c[0] + 1, c[1] @ c[1].T @ c[1]), (0, x / 9)
        ),
        A,
    ),
    "cond": (lambda x, i: lax.cond(i[0, 0] > 0, jnp.sin, jnp.cos, x), A, INTS),
    "switch": (lambda x, i: lax.switch(i[1, 3], [jnp.sin, jnp.cos, jnp.tanh], x), A, INTS),
    "mapped while": (
        jax.vmap(lambda x: lax.while_loop(lambda c: c < 9.0, lambda c: c * 2, abs(x) + 1)),
        A[0],
    ),
    "diagonal": (lambda x: jnp.diag(x[0]) + jnp.diag(jnp.diag(x[:, :3])).sum(), A),
    "small integers": (lambda i: i.astype(jnp.int8) @ i.astype(jnp.int8).T, INTS),
    "masked softmax": (lambda x: jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf), where=x > 0), A),
    "jit": (lambda x: jax.jit(lambda y: y @ y.T)(x), A),
    "checkpoint that moves": (jax.checkpoint(lambda x: x.T[::-1]), A),
    "checkpoint": (lambda x: jax.grad(lambda y: jax.checkpoint(jnp.sin)(y).sum())(x), A),
    "vmap": (jax.vmap(lambda x, m: jnp.tanh(m.T @ x), (0, None)), A, M),
    "grad of relu": (jax.grad(lambda x: (jax.nn.relu(x) ** 2).sum()), A),
    "grad of max": (jax.grad(lambda x: x.max(1).sum()), A),
    "grad of lookup": (jax.grad(lambda x, i: (x[jnp.abs(i) % 3] ** 2).sum()), A, INTS),
    "grad of scan": (
        jax.grad(lambda x: lax.scan(lambda c, y: (jnp.tanh(c * y), c), x[0], x)[1].sum()),
        A,
    ),
    "infinities": (lambda x: jnp.where(x > 0, -jnp.inf, x), A),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_xla_within_rounding(name):
    f, *arguments = FUNCTIONS[name]
    _, found = run(f, *arguments)
    with jax.enable_x64(True):
        wanted = [np.asarray(a) for a in jax.tree.leaves(jax.jit(f)(*arguments))]
    assert len(found) == len(wanted)
    for (value, sigma), want in zip(found, wanted, strict=True):
        assert value.dtype == want.dtype
        assert value.shape == want.shape
        with np.errstate(invalid="ignore"):
            off = np.where(value == want, 0, np.abs(value * 1.0 - want))
        assert (off <= 32 * sigma).all()


MOVES = ["shapes", "split", "stack", "pad", "where", "clip", "sort", "relu", "dynamic update slice"]


@pytest.mark.parametrize("name", [*MOVES, "checkpoint that moves"])
def test_what_only_moves_values_has_no_rounding(name):
    f, *arguments = FUNCTIONS[name]
    assert all((sigma == 0).all() for _, sigma in run(f, *arguments)[1])


def test_each_case_is_cut_where_its_own_number_says():
    def f(x, new, i):
        return lax.dynamic_slice(x, (i, 1), (2, 3)), lax.dynamic_update_slice(x, new, (i, 0))

    x, new, i = normal(5, 3, 4), normal(5, 2, 2, seed=1), np.array([0, 1, 2, -7, 7])
    rounding = Rounding(F64, places(np.random.default_rng(0)), margin=32, cases=5)
    with jax.enable_x64(True):
        found = rounding.run(jax.make_jaxpr(f)(x[0], new[0], i[0]), [x, new, i])
        for (value, sigma), want in zip(found, jax.vmap(f)(x, new, i), strict=True):
            np.testing.assert_array_equal(value, want)
            assert not sigma.any()


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", ["matrix product", "elementary", "softmax", "scan", "vmap"])
def test_sigma_is_the_scale_of_rounding_in_the_dtype(name, dtype):
    f, *arguments = FUNCTIONS[name]
    (value, sigma), *_ = run(f, *arguments, dtype=dtype)[1]
    u = np.finfo(dtype).eps / 2
    if name == "matrix product":
        scale = np.abs(arguments[0]) @ np.abs(arguments[1])
        assert (sigma < 4 * u * scale).all()
    assert (sigma[value != 0] > 0).all()


@given(st.integers(0, 2**32 - 1))
def test_float32_products_stay_within_a_few_sigma(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((7, 7)).astype(np.float32) for _ in range(2))
    ((value, sigma),) = run(
        lambda a, b: jnp.tanh(a @ b), a.astype(float), b.astype(float), dtype=F32, seed=seed
    )[1]
    error = np.abs(np.tanh(a @ b).astype(float) - value)
    assert (error <= 32 * sigma).all()
    assert error.max() > 0


def test_a_long_sum_of_one_sign_in_any_order_stays_within_a_few_sigma():
    x = np.random.default_rng(0).random(20000).astype(np.float32)
    ((value, sigma),) = run(jnp.sum, x.astype(float), dtype=F32)[1]
    one_after_another = np.cumsum(x, dtype=np.float32)[-1]
    assert abs(float(one_after_another) - value) <= 32 * sigma
    assert abs(float(x.sum()) - value) <= 32 * sigma


def test_tiny_values_keep_a_sigma():
    _, ((_, sigma),) = run(lambda x: x * x * 3.0, np.full(4, 1e-150))
    assert (sigma > 0).all()
    _, ((_, sigma),) = run(lambda x: x * 3.0, np.full(4, 1e-44), dtype=F32)
    assert (sigma >= np.finfo(np.float32).smallest_subnormal / 10).all()


def test_where_subnormals_are_flushed_they_are_within_their_sigma():
    tiny = np.full(4, 1.5e-310)
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(lambda x: x * 1.1)(tiny)
    rounding = Rounding(F64, places(np.random.default_rng(0)), margin=32)
    ((value, sigma),) = rounding.run(closed, [np.asarray(tiny)[None]])
    assert (value <= 32 * sigma).all()


def test_a_comparison_within_rounding_is_undecided_and_an_exact_tie_is_not():
    third = np.array([1 / 3])
    slope = jax.grad(lambda x, b: jax.nn.relu(x * 3 - b).sum())
    assert run(slope, third, np.ones(1))[0].undecided
    assert not run(slope, np.zeros(1), np.zeros(1))[0].undecided
    assert not run(slope, third, 2 * np.ones(1))[0].undecided
    assert run(lambda x: jnp.floor(x * 3), third)[0].undecided
    assert run(lambda x: (x * 3).astype(int), third)[0].undecided


def test_a_sample_that_leaves_the_domain_leaves_the_case_undecided():
    one = np.ones(1)
    rounding, ((value, sigma),) = run(lambda x: jnp.sqrt(1 - x / 3 * 3), one)
    assert (value, sigma) == (0, np.inf)
    assert rounding.undecided
    assert not run(lambda x: jnp.sqrt(2 - x / 3 * 3), one)[0].undecided


def test_peak_is_the_largest_value_on_the_way():
    assert run(lambda x: jnp.exp(x) * jnp.exp(-x), np.array([100.0]))[0].peak > 1e43


def test_one_noise_for_one_seed():
    f, *arguments = FUNCTIONS["scan"]
    first, again, other = (run(f, *arguments, seed=s)[1] for s in (0, 0, 1))
    np.testing.assert_array_equal(first[0][1], again[0][1])
    assert (first[0][1] != other[0][1]).any()


def test_the_counter_of_a_loop_is_not_blurred():
    def looped(w, x):
        return lax.fori_loop(0, len(x), lambda t, s: jnp.tanh(w * s + x[t]), 0.5)

    _, ((value, sigma),) = run(looped, np.array(0.7), normal(6), dtype=F64)
    assert 0 < sigma < 1e-14 * abs(value)


def test_a_sum_over_the_steps_of_a_scan_has_the_noise_of_one_sum():
    def added(x):
        return lax.scan(lambda c, x_t: (c + x_t.sum(), None), 0.0, x)[0]

    def carried(x):  # every partial sum is looked at: it is no sum in any order
        return lax.scan(lambda c, x_t: (c + x_t.sum(), c), 0.0, x)

    x = normal(64, 3)
    spread = [run(f, x, dtype=F32, seed=s)[1][0][1] for s in range(8) for f in (added, carried)]
    assert np.mean(spread[::2]) > 1.5 * np.mean(spread[1::2])


def in_a_scan(state, x):
    """The sum of two, the second of which comes step by step."""
    return lax.scan(lambda s, x_t: (s + x_t, None), state, x[None])[0]


@pytest.mark.parametrize(
    "added",
    [
        lambda a, b, c: (a + b) + c,
        lambda a, b, c: in_a_scan(c, a + b),
        lambda a, b, c: in_a_scan(a, b) + c,
        lambda a, b, c: lax.scan(lambda s, x_t: (s + x_t, s), a, jnp.stack([b, c]))[0],
        lambda a, b, c: jax.jit(lambda a, b: jnp.where(a > 0, a + b, 0.0))(a, b) + c,
        lambda a, b, c: lax.cond(c.sum() > 0, lambda a, b: a + b, lambda a, b: a, a, b) + c,
        lambda a, b, c: (jnp.concatenate([a + b, b])[:3])[::-1] + c,
        lambda a, b, c: jnp.split(jnp.concatenate([a + b, b]), 2)[0] + c,
        lambda a, b, c: (a + b)[np.array([2, 0, 1])] + c,
    ],
    ids=["plain", "into", "out", "step to step", "call", "branch", "moved", "split", "gather"],
)
def test_a_sum_of_three_has_the_noise_of_any_order_across_every_border(added):
    # (a + b) + c is 2⁻³⁰, and a + (b + c) is 0 in float32
    a, b, c = np.full(3, 3.0), np.full(3, -3.0), np.full(3, 2.0**-30)
    _, ((value, sigma),) = run(added, a, b, c, dtype=F32)
    np.testing.assert_array_equal(value, c)
    assert (sigma > c / 4).all()


def test_a_sum_of_three_is_as_noisy_as_terms_that_are_0_but_for_rounding():
    def added(a, b, c):
        nothing = a * b - a * b * 1.0 - c + c  # in float32 some 1e-7
        return nothing + (c - nothing)

    a, b, c = np.full(3, 1.1), np.full(3, 0.7), np.full(3, 2.0**-60)
    _, ((_, sigma),) = run(added, a, b, c, dtype=F32)
    assert (sigma > 2.0**-52).all()


@pytest.mark.parametrize(
    ("vanishing", "arguments"),
    [
        (lambda x: jnp.exp(x), (-746.0,)),
        (lambda x: jax.nn.sigmoid(x), (-746.0,)),
        (lambda x, y: x * y, (1e-200, -1e-200)),
        (lambda x, y: x / y, (1e-200, 1e200)),
    ],
    ids=["exp", "sigmoid", "product", "quotient"],
)
def test_what_is_too_small_for_float64_may_be_a_subnormal_elsewhere(vanishing, arguments):
    _, ((value, sigma),) = run(vanishing, *(np.full(3, a) for a in arguments))
    np.testing.assert_array_equal(value, 0)
    assert (sigma > 0).all()
    assert (sigma < 1e-307).all()


def test_what_vanished_by_cancellation_alone_keeps_its_noise():
    def nearly_nothing(a, b):  # 1e-400, and 1e-216 by what rounding makes of the difference
        return (a - a / 3 * 3 + b) * b

    _, ((value, sigma),) = run(nearly_nothing, np.full(3, 1.1), np.full(3, 1e-200))
    np.testing.assert_array_equal(value, 0)
    assert (sigma > 1e-218).all()


def test_a_product_with_0_and_an_exponential_of_minus_infinity_are_exactly_0():
    for exact in (lambda x: 0.0 * x, lambda x: jnp.exp(-jnp.inf * x), lambda x: (x - x) / x):
        assert run(exact, np.ones(1))[1][0] == (0, 0)


def test_numbers_of_few_digits_make_ties_and_no_narrower_bands():
    from bptt_verify import Pair
    from bptt_verify.judge import Judge

    def honest(i):  # rounds where the twin does not
        return {"y": (i["x"] / 3).sum(0) * np.asarray(3, i["x"].dtype)}, None

    pair = Pair(
        name="sum",
        inputs={"x": "N H"},
        outputs={"y": "H"},
        forward=honest,
        twin=lambda i: {"y": i["x"].sum(0)},
    )
    judge = Judge(pair, F32)
    from bptt_verify import draw

    for seed in range(20):
        found = judge.one(draw.parse(pair, f"N=7 H=5 x=grid seed={seed}"))
        assert found["y"].error < np.inf


@pytest.mark.parametrize(
    ("a", "b", "decided"),
    [
        (1020.0, 1000.0, False),  # off by several units, across the bend
        (3000.0, 1000.0, True),  # as far off, but saturated
        (0.001, 0.0, True),
    ],
)
def test_a_function_that_bends_within_its_band_is_undecided(a, b, decided):
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    rounding, _ = run(lambda a, b: jnp.tanh(a * 1.5 - b * 1.5), a, b, dtype=bfloat16)
    assert rounding.undecided[0] != decided


@pytest.mark.parametrize("scale", [1e-290, 1e290])
def test_sigma_is_in_proportion_at_the_ends_of_the_range(scale):
    (_, usual) = run(lambda a: a * 3.0, A)[1][0]
    (_, far) = run(lambda a: a * 3.0, A * scale)[1][0]
    np.testing.assert_allclose(far / scale, usual, rtol=0.2)


def test_sums_of_the_same_terms_round_apart():
    x = np.array([1.0, -1.0, 1e-4])
    w = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.5]])
    _, ((value, sigma),) = run(lambda x, w: (x @ w)[0] - (x @ w)[1], x, w, dtype=F32)
    honest = np.float32(1 + 1e-4) - 1 - (np.float32(1 + 5e-5) - 1)  # the small term first
    assert 0 < abs(honest - value) < multiplier(F32) * sigma
    assert sigma < 1e-6


def test_equal_errors_add_up():
    n = 256

    def in_one(x):
        return (x / 3 - 1 / 3).sum()

    def step_by_step(x):
        return lax.scan(lambda c, x_t: (c + (x_t / 3 - 1 / 3), None), 0.0, x)[0]

    x = np.full(n, 1 + 1e-4)
    for f in (in_one, step_by_step):
        _, ((_, sigma),) = run(f, x, dtype=F32)
        # each is off by up to u/3, all of them the same way
        assert sigma > n * 2**-24 / 3 / 5


def test_a_sum_that_is_zero_but_for_rounding_is_off_in_its_own_way():
    def kept(x):
        away = x / 3 - (x / 3).mean()
        return away[0] - away[0] * 0 - away.sum() + (away[1:]).sum()

    # in samples that share all noise, away.sum() cancels the terms; a subject knows it to be 0
    x = 1000 + normal(6)
    _, ((value, sigma),) = run(kept, x, dtype=F32)
    assert abs(value) < 1e-9
    assert sigma > 1000 / 3 * 2**-24 / 3


def test_infinities_that_the_backward_pass_reads_stay_infinities():
    def masked(x, cotangent):
        _, vjp = jax.vjp(lambda x: jnp.exp(jnp.log(jnp.maximum(x, 0)) * 2.0), x)
        return vjp(cotangent)[0], jnp.log(jnp.maximum(x, 0)) * cotangent

    x, cotangent = np.array([-1.0, 0.5]), np.ones(2)
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(masked)(x, cotangent)
    rounding = Rounding(F32, places(np.random.default_rng(0)), margin=9)
    _, (value, sigma) = rounding.run(closed, [x[None], cotangent[None]])
    assert value[0, 0] == -np.inf
    assert sigma[0, 0] == 0
    assert 0 < sigma[0, 1] < 1e-6


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda a: jnp.tanh(a).sum(), False),
        (lambda a: jnp.where(a > 0, a, 0), True),
        (lambda a: jnp.floor(a), True),
        (lambda a: a[jnp.argmax(a[:, 0])], True),
        (lambda a: lax.scan(lambda c, x: (jnp.where(x[0] > c, x[0], c), c), 0.0, a), True),
        (lambda a: lax.scan(lambda c, x: (c + x[0], c), 0.0, a), False),
        (jax.grad(lambda a: jax.nn.relu(a).sum()), True),
        (jax.grad(lambda a: jax.nn.sigmoid(a).sum()), False),
    ],
)
def test_only_what_is_discrete_has_ties(f, expected):
    with jax.enable_x64(True):
        assert decides(jax.make_jaxpr(f)(A).jaxpr) is expected
