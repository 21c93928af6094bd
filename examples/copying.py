"""Copying what was marked: one symbol in thirty, to be said at the end.

Each step shows one of 8 symbols at random. One of those in the first half is marked, and after the
last step its symbol is asked for; guessing is right in 12.5 %. To answer, a network has to take a
symbol in only where the mark is, and to keep it from all that follow: what a gate is for.

The LSTM has to get REQUIRED right; the exit code is 1 when it does not. Beside it stands the
vanilla RNN of as many weights, trained in the same way, at the best of three learning rates;
nothing is required of it.

    python -m pip install manual-bptt
    python examples/copying.py
"""

import sys

import numpy as np

from manual_bptt import lstm, network, rnn, training

REQUIRED = 0.95
STEPS, SYMBOLS = 30, 8
UPDATES, BATCH = 1000, 32

# At first the cell is to forget next to nothing: f = σ(1 + 3), which to the power of 30 is 0.58.
LSTM = network.Network(lstm, options={"forget_offset": 3.0})
RNN = network.Network(rnn)


def batch(rng, size):
    """Sequences (T, B, D), the mark in the last entry, and targets (T, B), -1 but at the end."""
    symbols = rng.integers(SYMBOLS, size=(STEPS, size))
    marked = rng.integers(STEPS // 2, size=size), np.arange(size)
    x = np.zeros((STEPS, size, SYMBOLS + 1), np.float32)
    np.put_along_axis(x, symbols[..., None], 1, axis=-1)
    x[(*marked, SYMBOLS)] = 1
    targets = np.full((STEPS, size), -1)
    targets[-1] = symbols[marked]
    return x, targets


def trained(net, hidden, rate, updates=UPDATES):
    """The weights after Adam on fresh batches, its rate falling to zero."""
    rng = np.random.default_rng(0)
    params = network.init(rng, net.cell, SYMBOLS + 1, hidden, SYMBOLS, dtype=np.float32)
    adam = training.adam_start(params)
    for update in range(updates):
        x, targets = batch(rng, BATCH)
        _, cache = network.forward(net, params, x, targets)
        grads = network.backward(net, params, cache, 1 / BATCH)
        clipped, _ = training.clip_norm(params, grads, 1.0)
        params, adam = training.adam(params, clipped, adam, rate * (1 - update / updates))
    return params


def accuracy(net, params):
    """The part of a thousand fresh sequences whose likeliest symbol is the marked one."""
    x, targets = batch(np.random.default_rng(1), 1000)
    _, cache = network.forward(net, params, x, targets)
    return float(np.mean(cache.readout.o[-1].argmax(axis=-1) == targets[-1]))


def main():
    params = trained(LSTM, hidden=32, rate=1e-2)
    found = accuracy(LSTM, params)
    print(f"lstm, {network.count(params)} weights: {found:.1%}, required {REQUIRED:.0%}")
    each = [trained(RNN, hidden=67, rate=rate) for rate in (1e-2, 4e-3, 1e-3)]
    best = max(accuracy(RNN, params) for params in each)
    print(f"rnn, {network.count(each[0])} weights: {best:.1%}; guessing: {1 / SYMBOLS:.1%}")
    return 0 if found >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
