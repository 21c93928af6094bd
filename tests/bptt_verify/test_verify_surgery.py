"""Changes made together are those made one by one: of the same values, and the same gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verify.noise import places
from bptt_verify.rounding import Rounding
from bptt_verify.surgery import Change, evaluate, evaluate_one, sites
from bptt_verify.suspects import altered
from bptt_verify.suspects.altered import batches
from bptt_verify.suspects.scans import of_scan
from bptt_verify.suspects.suspect import Known
from bptt_verify.suspects.terms import of_any, of_choice, of_function, of_product, of_sum
from bptt_verify.tolerance import multiplier


@jax.jit
def gated(a):
    return jnp.tanh(a) * a


@jax.custom_vjp
def sine(x):
    return jnp.sin(x)


sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, d: (d * jnp.cos(x),))


def step(state, x):
    h, n = state  # and a whole number is carried
    a = x + h @ W.T
    h = jax.nn.sigmoid(a) * jnp.tanh(h) + jnp.where(n > 1, sine(a), 0.5 * a)
    return (h, n + 1), h * n


def scanned(x, h):
    (h, _), y = lax.scan(step, (h, 0), x)
    return y, h


def looped(x, h):
    state, y = (h, 0), []
    for x_t in x:
        state, out = step(state, x_t)
        y.append(out)
    return jnp.stack(y), state[0]


def through_jit(x, h):
    return gated(gated(x) + h), jax.nn.relu(x)


def within(x, h):
    def outer(h, x):
        h, y = lax.scan(
            lambda h, k: (jnp.tanh(h @ W.T) + k * h, jnp.sin(h)), h + x, jnp.arange(2.0)
        )
        return h, h + y.sum(0)

    return lax.scan(outer, h, x)[::-1]


TWICE = np.arange(2.0)
W = np.random.default_rng(0).standard_normal((3, 3))
TWINS = {"scan": scanned, "loop": looped, "jit": through_jit, "nested scan": within}
X = np.random.default_rng(1).standard_normal((4, 2, 3)), np.random.default_rng(2).random((2, 3))


def changes_of(closed):
    """All that can be misread, of every kind, in the twin."""
    found = list(sites(closed.jaxpr))
    makers = {var: eqn for _, eqn in found for var in eqn.outvars}
    known = Known({}, makers, {}, set())
    return [
        Change([site], apply, *besides)
        for misread in (of_function, of_product, of_scan, of_choice, of_sum, of_any)
        for site, eqn in found
        for _, apply, *besides in misread(eqn, known)
    ]


@pytest.fixture(params=TWINS)
def traced(request):
    with jax.enable_x64(True):
        yield jax.make_jaxpr(TWINS[request.param])(*X)


def pulled(results, *which):
    """Values, and what reaches both inputs from cotangents that tell all entries apart.

    Once, or side by side for each of these numbers, which `results` is given before the inputs.
    """

    def program(*arguments):
        *number, x, h = arguments
        values, vjp = jax.vjp(lambda *inputs: results(*number, *inputs), x, h)
        ones = [jnp.cos(jnp.arange(1.0, v.size + 1)).reshape(v.shape) for v in values]
        return *values, *vjp(ones)

    first = [np.array(which[0])] if which else []
    every = [np.array(which)] if which else []
    n = len(which) or 1
    closed = jax.make_jaxpr(program)(*first, *X)
    rounding = Rounding(F64, places(RNG), multiplier(F64), cases=n)
    found = rounding.run(closed, [*every, *(np.repeat(a[None], n, 0) for a in X)])
    return [list(zip(*each, strict=True)) for each in found]  # value and σ, for each number


def test_each_by_its_number_is_what_it_is_alone(traced):
    changes = changes_of(traced)
    assert len(changes) > 40
    different = 0
    (right,) = zip(*pulled(lambda *x: evaluate(traced, x, NONE)), strict=True)
    for batch in batches(changes, dict(sites(traced.jaxpr)), 64):
        some = [changes[k] for k in batch]
        together = pulled(
            lambda which, *x, some=some: evaluate_one(traced, x, some, which), -1, *range(len(some))
        )
        unchanged, *each = zip(*together, strict=True)
        same(unchanged, right)  # by a number that none has
        for change, found in zip(some, each, strict=True):
            (alone,) = zip(*pulled(lambda *x, c=change: evaluate(traced, x, c)), strict=True)
            same(found, alone)
            different += not all(map(alike, found, right))
    assert different > 0.6 * len(changes)  # else it would not matter which


NONE = Change((), lambda *_: [])
RNG = np.random.default_rng(3)
F64 = np.dtype(np.float64)


def alike(one, other):
    """Whether two values are as near as the rounding of both lets them be."""
    (a, sigma_a), (b, sigma_b) = one, other
    return bool((np.abs(a - b) <= multiplier(F64) * (sigma_a + sigma_b)).all())


def same(found, wanted):
    assert len(found) == len(wanted)
    assert all(map(alike, found, wanted))


def test_none_is_inside_of_what_another_one_changes(traced):
    changes = changes_of(traced)
    at = dict(sites(traced.jaxpr))
    found = batches(changes, at, 64)
    assert sorted(k for batch in found for k in batch) == [*range(len(changes))]
    for batch in found:
        together = [site for k in batch for site in changes[k].sites]
        assert not any(a != b and a[: len(b)] == b for a in together for b in together)


def test_one_inside_of_another_is_refused():
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(through_jit)(*X)
        outer = next(
            site for site, eqn in sites(closed.jaxpr) if eqn.primitive.name in ("jit", "pjit")
        )
        pair = [Change([site], lambda eqn, x, run: run(*x)) for site in (outer, (*outer, 0))]
        with pytest.raises(ValueError, match=r"^changes: expected none inside"):
            evaluate_one(closed, X, pair, 0)


@pytest.mark.parametrize(("most", "equations", "count"), [(64, 320, 1), (7, 320, 2), (64, 5, 2)])
def test_a_batch_has_its_limits(monkeypatch, most, equations, count):
    monkeypatch.setattr(altered, "EQUATIONS", equations)
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(lambda x, h: jnp.tanh(x) + h)(*X)
        found = list(sites(closed.jaxpr))
        changes = [Change([site], NONE.apply) for site, _ in found] * (10 // len(found))
    sizes = [len(batch) for batch in batches(changes, dict(found), most)]
    assert len(sizes) == count
    assert max(sizes) == min(len(changes), most, equations)
