"""Lukas' fork of a well-known gist: a character model in one function, columns, dicts by time.

The softmax is the overflow-safe one; the forward and the backward part are cut apart for the check.
"""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Index, Pair


def loss_fun(v):
    inputs, targets, hprev = v["inputs"], v["targets"], v["hprev"]
    Wxh, Whh, Why, bh, by = v["Wxh"], v["Whh"], v["Why"], v["bh"], v["by"]
    xs, hs, ps = {}, {-1: hprev}, {}
    loss = 0
    # forward pass
    for t in range(len(inputs)):
        xs[t] = np.zeros((len(Why), 1), hprev.dtype)  # encode in 1-of-k representation
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(np.dot(Wxh, xs[t]) + np.dot(Whh, hs[t - 1]) + bh)  # hidden state
        y = np.dot(Why, hs[t]) + by  # unnormalized log probabilities for next chars
        logps = y - y.max() - np.log(np.sum(np.exp(y - y.max())))
        ps[t] = np.exp(logps)
        loss = loss - logps[targets[t], 0]  # cross-entropy
    return {"loss": loss}, (v, xs, hs, ps)


def loss_fun_backward(saved, d):
    v, xs, hs, ps = saved
    dWxh, dWhh, dWhy = (np.zeros_like(v[k]) for k in ("Wxh", "Whh", "Why"))
    dbh, dby = np.zeros_like(v["bh"]), np.zeros_like(v["by"])
    dhnext = np.zeros_like(hs[0])
    # backward pass: compute gradients going backwards
    for t in reversed(range(len(xs))):
        dy = np.copy(ps[t])
        dy[v["targets"][t]] -= 1  # backprop into y
        dy *= d["loss"]
        dWhy += np.dot(dy, hs[t].T)
        dby += dy
        dh = np.dot(v["Why"].T, dy) + dhnext  # backprop into h
        dhraw = (1 - hs[t] * hs[t]) * dh  # backprop through tanh nonlinearity
        dbh += dhraw
        dWxh += np.dot(dhraw, xs[t].T)
        dWhh += np.dot(dhraw, hs[t].T)
        dhnext = np.dot(v["Whh"].T, dhraw)
    return {"hprev": dhnext, "Wxh": dWxh, "Whh": dWhh, "Why": dWhy, "bh": dbh, "by": dby}


def twin(v):
    def step(h, now):
        char, target = now
        h = jnp.tanh(v["Wxh"][:, char, None] + v["Whh"] @ h + v["bh"])
        y = v["Why"] @ h + v["by"]
        return h, -jax.nn.log_softmax(y[:, 0])[target]

    return {"loss": jax.lax.scan(step, v["hprev"], (v["inputs"], v["targets"]))[1].sum()}


pair = Pair(
    name="char-rnn",
    inputs={
        **{"inputs": Index("T", below="V"), "targets": Index("T", below="V"), "hprev": "H 1"},
        **{"Wxh": "H V", "Whh": "H H", "Why": "V H", "bh": "H 1", "by": "V 1"},
    },
    outputs={"loss": ""},
    batch=None,
    forward=loss_fun,
    backward=loss_fun_backward,
    twin=twin,
)

FIX = ("dWhh += np.dot(dhraw, hs[t].T)", "dWhh += np.dot(dhraw, hs[t - 1].T)")
STEP = "dWhh"
TERM = "previous state is meant"
LINE = 'v["Whh"] @ h'
