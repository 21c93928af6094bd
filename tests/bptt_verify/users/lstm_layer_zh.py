"""小林的课程设计:一个 LSTM 层的类,批次在前,像框架里的层那样有 forward 和 backward。"""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def sigmoid(x):
    # 数值稳定的写法,避免 exp 溢出
    z = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + z), z / (1 + z))


class LSTMLayer:
    """长短期记忆网络的一层。"""

    def __init__(self, Wx, Wh, b):
        self.Wx, self.Wh, self.b = Wx, Wh, b  # (4, D, H), (4, H, H), (4, H)
        self.cache = []

    def forward(self, x, h, c):
        self.x, ys = x, []
        for t in range(x.shape[1]):  # 逐个时间步
            h_prev, c_prev = h, c
            a = [x[:, t] @ self.Wx[k] + h @ self.Wh[k] + self.b[k] for k in range(4)]
            f, i, o = sigmoid(a[0]), sigmoid(a[1]), sigmoid(a[3])  # 遗忘门、输入门、输出门
            g = np.tanh(a[2])  # 候选状态
            c = f * c_prev + i * g
            h = o * np.tanh(c)
            self.cache.append((h_prev, c_prev, f, i, g, o, c))
            ys.append(h)
        return np.stack(ys, axis=1), h, c

    def backward(self, dy, dh_n, dc_n):
        dx, self.dc_t = np.zeros_like(self.x), np.zeros_like(dy)
        dWx, dWh, db = (np.zeros_like(w) for w in (self.Wx, self.Wh, self.b))
        dh = dh_n  # 从最后一步开始
        dc = np.zeros_like(dc_n)
        for t in reversed(range(self.x.shape[1])):
            h_prev, c_prev, f, i, g, o, c = self.cache[t]
            dh = dh + dy[:, t]
            dc = dc + dh * o * (1 - np.tanh(c) ** 2)
            self.dc_t[:, t] = dc
            da = [
                dc * c_prev * f * (1 - f),
                dc * g * i * (1 - i),
                dc * i * (1 - g**2),
                dh * np.tanh(c) * o * (1 - o),
            ]
            for k in range(4):  # 四个门的参数梯度累加
                dWx[k] += self.x[:, t].T @ da[k]
                dWh[k] += h_prev.T @ da[k]
                db[k] += da[k].sum(axis=0)
            dx[:, t] = sum(da[k] @ self.Wx[k].T for k in range(4))
            dh = sum(da[k] @ self.Wh[k].T for k in range(4))
            dc = dc * f
        return dx, dh, dc, dWx, dWh, db


def forward(i):
    layer = LSTMLayer(i["Wx"], i["Wh"], i["b"])
    y, h_n, c_n = layer.forward(i["x"], i["h0"], i["c0"])
    return {"y": y, "h_n": h_n, "c_n": c_n}, layer


def backward(layer, d):
    grads = layer.backward(d["y"], d["h_n"], d["c_n"])
    names = ("x", "h0", "c0", "Wx", "Wh", "b")
    return {**dict(zip(names, grads, strict=True)), "dc": layer.dc_t}


def twin(i):
    def step(state, now):  # scan 要求时间在前
        h, c = state
        x_t, dc_t = now
        a = jnp.einsum("nd,kdh->knh", x_t, i["Wx"]) + jnp.einsum("nj,kjh->knh", h, i["Wh"])
        a = a + i["b"][:, None]
        f, j, o = jax.nn.sigmoid(a[0]), jax.nn.sigmoid(a[1]), jax.nn.sigmoid(a[3])
        c = f * c + j * jnp.tanh(a[2]) + dc_t
        h = o * jnp.tanh(c)
        return (h, c), h

    now = (jnp.moveaxis(i["x"], 1, 0), jnp.moveaxis(i["dc"], 1, 0))
    (h, c), y = jax.lax.scan(step, (i["h0"], i["c0"]), now)
    return {"y": jnp.moveaxis(y, 0, 1), "h_n": h, "c_n": c}


pair = Pair(
    name="lstm-layer",
    inputs={
        **{"x": "N T D", "h0": "N H", "c0": "N H"},
        **{"Wx": "4 D H", "Wh": "4 H H", "b": "4 H"},
    },
    outputs={"y": "N T H", "h_n": "N H", "c_n": "N H"},
    taps={"dc": "N T H"},
    batch="N",
    forward=forward,
    backward=backward,
    twin=twin,
)

FIX = ("dc = np.zeros_like(dc_n)", "dc = dc_n")
STEP = "dc"
TERM = "the cotangent of c_n was dropped"
LINE = ""
