"""The gradients against the definition of the derivative, and the loss against a scalar loop.

Along one entry, D(h) = [L(t + h) - L(t - h)] / 2h = L' + k h^2 + O(h^4), so that
R(h) = [4 D(h/2) - D(h)] / 3 = L' + O(h^4), and R(h/2) is nearer still. The tolerance is derived:

- truncation: of an O(h^4) error halving h leaves 1/16, so |R(h/2) - L'| <= |R(h) - R(h/2)| with
  room to spare (15 times the leading term);
- rounding: entries and steps are multiples of 2^-20, so t +- h is exact. If each L is off by at
  most E, then D(h) by E/h, R(h) by (4 * 2E/h + E/h) / 3 = 3 E/h, R(h/2) by 6 E/h. The difference
  of the two may hide 9 E/h of truncation: 15 E/h together. The gradient's own rounding is that of
  about as many operations as L again, a few E, and disappears in E/h.

E is the running error bound of the forward pass at the sizes at hand, see `rounding_of`.
"""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from manual_bptt import model, rnn

EPS = np.finfo(float).eps
STEP = 2.0**-8
GRID = 2.0**-20
LIBRARY = 4  # units in the last place that NumPy's vectorised exp, log and tanh may be off
SLOPES = {"tanh": lambda s: 1 - s * s, "sigmoid": lambda s: s * (1 - s), "relu": np.sign}

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(*[st.integers(1, 3)] * 5)  # T, B, D, H, C


def draw(seed, size):
    rng = np.random.default_rng(seed)
    T, B, D, H, C = size
    shapes = {"U": (H, D), "W": (H, H), "V": (C, H), "b": (H,), "c": (C,)}
    shapes |= {"x": (T, B, D), "s0": (B, H)}
    arrays = {k: np.round(rng.normal(size=s) / GRID) * GRID for k, s in shapes.items()}
    return rng, arrays


def rounding_of(a, states, z=None):
    """Bounds on the rounding errors of the states and, given the logits, of L.

    Every operation adds at most eps times the sizes it meets; f never magnifies an error (f' <= 1)
    and is itself a library call with up to three operations around it. Doubled at the end, because
    the points t +- h are not quite the point t.
    """
    U, W, V, b, c = (np.abs(a[k]) for k in "UWVbc")
    terms = U.shape[1] + W.shape[1] + 1  # of the sum a_t
    errors, before, error = [], np.abs(a["s0"]), np.zeros_like(a["s0"])
    for x, s in zip(np.abs(a["x"]), np.abs(states), strict=True):
        met = x @ U.T + before @ W.T + b
        error = error @ W.T + EPS * (terms * met + (LIBRARY + 3) * s)
        errors.append(error)
        before = s
    errors = np.array(errors)
    if z is None:
        return 2 * errors
    H, C = V.shape[1], V.shape[0]
    logits = errors @ V.T + EPS * (H + 1) * (np.abs(states) @ V.T + c)
    log_o = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
    # z - max z, e to it, a sum of C, its logarithm, a difference; log o moves by two logit errors
    steps = 2 * logits.max(-1) + EPS * (C + 2 * LIBRARY + 2) * (1 + np.abs(log_o).max(-1))
    return 2 * (steps.sum() + EPS * log_o.size * np.abs(log_o).max(-1).sum())


def derivatives(loss, arrays, name, error):
    """For every entry of one array its derivative by definition, and the bound on its error."""
    found, bound = np.empty_like(arrays[name]), np.empty_like(arrays[name])
    for at in np.ndindex(found.shape):

        def moved(by, at=at):
            array = arrays[name].copy()
            array[at] += by
            return loss({**arrays, name: array})

        d = [(moved(h) - moved(-h)) / (2 * h) for h in (STEP, STEP / 2, STEP / 4)]
        coarse, fine = ((4 * d[i + 1] - d[i]) / 3 for i in (0, 1))
        found[at], bound[at] = fine, abs(fine - coarse) + 15 * error / STEP
    return found, bound


def check(loss, arrays, grads, error):
    for name in arrays:
        found, bound = derivatives(loss, arrays, name, error)
        assert (np.abs(grads[name] - found) <= bound).all(), name


def same_side_of_the_kink(states, activation, seen):
    """Between the points of one check no unit of a relu layer switches on or off."""
    if activation == "relu":
        assume(((states > 0) == (seen > 0)).all())


def draw_targets(rng, size, kind):
    T, B, _, _, C = size
    if kind == "probabilities":
        quarters = rng.multinomial(4, np.full(C, 1 / C), (T, B))
        return quarters / 4, None
    targets = rng.integers(-1 if kind == "some absent" else 0, C, (T, B))
    return targets, rng.random((T, B)) < 0.7 if kind == "mask" else None


@pytest.mark.parametrize("kind", ["indices", "some absent", "mask", "probabilities"])
@pytest.mark.parametrize("activation", SLOPES)
@settings(max_examples=25, deadline=None)
@given(seed=seeds, size=sizes)
def test_the_gradients_of_the_model_are_its_derivatives(activation, kind, seed, size):
    rng, arrays = draw(seed, size)
    targets, mask = draw_targets(rng, size, kind)

    def forward(a):
        params = model.Params(*(a[k] for k in model.Params._fields))
        named = {"s0": a["s0"], "mask": mask, "activation": activation}
        return params, *model.forward(params, a["x"], targets, **named)

    params, _, cache = forward(arrays)
    states = cache.rnn.states

    def loss(a):
        _, value, moved = forward(a)
        same_side_of_the_kink(moved.rnn.states, activation, states)
        return value

    z = states @ arrays["V"].T + arrays["c"]
    grads = model.backward(params, cache)._asdict()
    check(loss, arrays, grads, rounding_of(arrays, states, z))


@pytest.mark.parametrize("activation", SLOPES)
@settings(max_examples=25, deadline=None)
@given(seed=seeds, size=sizes)
def test_the_gradients_of_the_layer_are_its_derivatives(activation, seed, size):
    rng, arrays = draw(seed, size)
    T, B, _, H, _ = size
    dstates, dlast = rng.normal(size=(T, B, H)), rng.normal(size=(B, H))

    def forward(a):
        params = rnn.Params(a["U"], a["W"], a["b"])
        return params, *rnn.forward(params, a["x"], a["s0"], activation)

    params, states, cache = forward(arrays)
    cotangents = dstates.copy()
    cotangents[-1] += dlast

    def loss(a):
        moved = forward(a)[1]
        same_side_of_the_kink(moved, activation, states)
        return (cotangents * moved).sum()

    error = (np.abs(cotangents) * rounding_of(arrays, states)).sum()
    error += 2 * EPS * states.size * np.abs(cotangents * states).sum()
    grads = rnn.backward(params, cache, dstates, dlast)._asdict()
    check(loss, {k: arrays[k] for k in ("U", "W", "b", "x", "s0")}, grads, error)


def scalar_loss(a, targets, activation):
    """Equations (1) to (5), one number at a time."""
    f = {
        "tanh": math.tanh,
        "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
        "relu": lambda v: max(v, 0),
    }
    T, B, D = a["x"].shape
    C, H = a["V"].shape
    losses = []
    for i in range(B):
        s = list(a["s0"][i])
        for t in range(T):
            s = [
                f[activation](
                    math.fsum(
                        [a["U"][j, d] * a["x"][t, i, d] for d in range(D)]
                        + [a["W"][j, k] * s[k] for k in range(H)]
                        + [a["b"][j]]
                    )
                )
                for j in range(H)
            ]
            z = [math.fsum([a["V"][k, j] * s[j] for j in range(H)] + [a["c"][k]]) for k in range(C)]
            total = math.fsum(math.exp(v) for v in z)
            losses += [-y * math.log(math.exp(z[k]) / total) for k, y in enumerate(targets[t, i])]
    return math.fsum(losses)


@pytest.mark.parametrize("activation", SLOPES)
@given(seed=seeds, size=sizes)
def test_the_loss_is_that_of_the_equations(activation, seed, size):
    rng, arrays = draw(seed, size)
    targets, _ = draw_targets(rng, size, "probabilities")
    params = model.Params(*(arrays[k] for k in model.Params._fields))
    named = {"s0": arrays["s0"], "activation": activation}
    loss, cache = model.forward(params, arrays["x"], targets, **named)
    states = cache.rnn.states
    z = states @ params.V.T + params.c
    # both sides round
    assert abs(loss - scalar_loss(arrays, targets, activation)) <= 2 * rounding_of(
        arrays, states, z
    )
