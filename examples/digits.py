"""Handwritten digits read row by row: many steps in, one class out, at the last step.

The digits are those of scikit-learn, 8 by 8 pixels: 8 steps of 8. One digit in five is held out.
Of those, the GRU has to get REQUIRED right; the exit code is 1 when it does not.

    python -m pip install manual-bptt scikit-learn
    python examples/digits.py
"""

import sys

import numpy as np
from sklearn.datasets import load_digits

from manual_bptt import gru, network, training

REQUIRED = 0.96
HIDDEN, BATCH, EPOCHS, RATE = 64, 32, 20, 5e-3

NETWORK = network.Network(gru)


def sequences():
    """Pixels (T, N, D) and classes (N,), in random order."""
    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = images[order].reshape(-1, 8, 8).swapaxes(0, 1) / 16  # (T, N, D), from 0 to 1
    return x.astype(np.float32), classes[order]


def at_the_end(x, classes):
    """Targets (T, B): the class at the last step, -1 where there is no loss."""
    targets = np.full(x.shape[:2], -1)
    targets[-1] = classes
    return targets


def trained(x, classes, epochs=EPOCHS):
    """The weights after Adam on the mean loss, its rate falling to zero."""
    rng = np.random.default_rng(1)
    params = network.init(rng, gru, x.shape[-1], HIDDEN, 10, dtype=np.float32)
    adam = training.adam_start(params)
    starts = range(0, x.shape[1] - BATCH + 1, BATCH)
    steps = epochs * len(starts)
    for epoch in range(epochs):
        order = rng.permutation(x.shape[1])
        for i, start in enumerate(starts):
            chosen = order[start : start + BATCH]
            batch = x[:, chosen]
            _, cache = network.forward(NETWORK, params, batch, at_the_end(batch, classes[chosen]))
            grads = network.backward(NETWORK, params, cache, 1 / BATCH)
            rate = RATE * (1 - (epoch * len(starts) + i) / steps)
            params, adam = training.adam(params, grads, adam, rate)
    return params


def accuracy(params, x, classes):
    """The part of the sequences whose likeliest class at the last step is theirs."""
    _, cache = network.forward(NETWORK, params, x, at_the_end(x, classes))
    return float(np.mean(cache.readout.o[-1].argmax(axis=-1) == classes))


def main():
    x, classes = sequences()
    held_out = len(classes) // 5
    params = trained(x[:, held_out:], classes[held_out:])
    found = accuracy(params, x[:, :held_out], classes[:held_out])
    print(f"{found:.1%} of {held_out} held-out digits, required {REQUIRED:.0%}")
    return 0 if found >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
