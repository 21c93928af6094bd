"""Dana rebuilt `keras.layers.LSTM(units, return_sequences=True)` to run it without Keras."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def call(weights):
    inputs, kernel, recurrent_kernel, bias = (
        weights[k] for k in ("inputs", "kernel", "recurrent_kernel", "bias")
    )
    batch, timesteps, _ = inputs.shape
    units = recurrent_kernel.shape[0]
    state_h = state_c = np.zeros((batch, units), inputs.dtype)
    outputs, tape = [], []
    for t in range(timesteps):
        z = inputs[:, t] @ kernel + state_h @ recurrent_kernel + bias
        z_i, z_f, z_c, z_o = np.split(z, 4, axis=1)
        i, f, o, c_bar = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o), np.tanh(z_c)
        tape.append((state_h, state_c, i, f, c_bar, o))
        state_c = f * state_c + i * c_bar
        state_h = o * np.tanh(state_c)
        outputs.append(state_h)
    return {"sequences": np.stack(outputs, axis=1)}, (inputs, kernel, recurrent_kernel, tape)


def gradient(saved, upstream):
    inputs, kernel, recurrent_kernel, tape = saved
    grad_inputs = np.zeros_like(inputs)
    grad_kernel = np.zeros_like(kernel)
    grad_recurrent = np.zeros_like(recurrent_kernel)
    grad_bias = np.zeros_like(kernel[0])
    grad_h = grad_c = np.zeros_like(tape[0][0])
    for t in reversed(range(len(tape))):
        h_prev, c_prev, i, f, c_bar, o = tape[t]
        c = f * c_prev + i * c_bar
        grad_h = grad_h + upstream["sequences"][:, t]
        grad_c = grad_c + grad_h * o * (1 - np.tanh(c) ** 2)
        grad_z = np.hstack(
            [
                grad_c * c_bar * i * (1 - i),
                grad_c * c_prev * f * (1 - f),
                grad_c * i * (1 - c_bar**2),
                grad_h * c * o * (1 - o),
            ]
        )
        grad_inputs[:, t] = grad_z @ kernel.T
        grad_kernel += inputs[:, t].T @ grad_z
        grad_recurrent += h_prev.T @ grad_z
        grad_bias += grad_z.sum(axis=0)
        grad_h = grad_z @ recurrent_kernel.T
        grad_c = grad_c * f
    return {
        "inputs": grad_inputs,
        "kernel": grad_kernel,
        "recurrent_kernel": grad_recurrent,
        "bias": grad_bias,
    }


def reference(weights):
    def step(carry, x):
        h, c = carry
        z = x @ weights["kernel"] + h @ weights["recurrent_kernel"] + weights["bias"]
        z_i, z_f, z_c, z_o = jnp.split(z, 4, axis=1)
        c = jax.nn.sigmoid(z_f) * c + jax.nn.sigmoid(z_i) * jnp.tanh(z_c)
        h = jax.nn.sigmoid(z_o) * jnp.tanh(c)
        return (h, c), h

    x = weights["inputs"].swapaxes(0, 1)
    zero = jnp.zeros((x.shape[1], weights["recurrent_kernel"].shape[0]))
    return {"sequences": jax.lax.scan(step, (zero, zero), x)[1].swapaxes(0, 1)}


pair = Pair(
    name="keras-lstm",
    inputs={"inputs": "B T D", "kernel": "D 4H", "recurrent_kernel": "H 4H", "bias": "4H"},
    outputs={"sequences": "B T H"},
    forward=call,
    backward=gradient,
    twin=reference,
)

FIX = ("grad_h * c * o", "grad_h * np.tanh(c) * o")
STEP = "dbias"
TERM = "the argument of tanh stands where tanh is meant"
LINE = "h = jax.nn.sigmoid(z_o) * jnp.tanh(c)"
