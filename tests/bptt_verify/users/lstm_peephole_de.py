"""Annika, Spracherkennung: ein LSTM mit Gucklöchern (peepholes), wie im Artikel von Gers u. a."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def sigma(z):
    klein = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, klein) / (1 + klein)


def vorwaerts(ein):
    U, W, b, p_e, p_v, p_a = (ein[n] for n in ("U", "W", "b", "p_e", "p_v", "p_a"))
    h, c, merker = ein["h0"], ein["c0"], []
    for x in ein["x"]:
        h_alt, c_alt = h, c
        z_e, z_v, z_k, z_a = np.split(x @ U.T + h_alt @ W.T + b, 4, axis=1)
        e = sigma(z_e + p_e * c_alt)
        v = sigma(z_v + p_v * c_alt)
        k = np.tanh(z_k)
        c = v * c_alt + e * k
        a = sigma(z_a + p_a * c)  # der Ausgang sieht schon die neue Zelle
        h = a * np.tanh(c)
        merker.append((x, h_alt, c_alt, e, v, k, a, c, h))
    folge = [np.stack(werte) for werte in zip(*merker, strict=True)]
    return {"h": folge[8], "c": folge[7]}, (ein, folge)


def rueckwaerts(gemerkt, d):
    ein, (x, h_alt, c_alt, e, v, k, a, c, _) = gemerkt
    g = {n: np.zeros_like(w) for n, w in ein.items()}
    g["dc"] = np.zeros_like(c)
    dh_weiter, dc_weiter = np.zeros_like(ein["h0"]), np.zeros_like(ein["c0"])
    for t in range(len(x) - 1, -1, -1):
        dh = d["h"][t] + dh_weiter
        dz_a = dh * np.tanh(c[t]) * a[t] * (1 - a[t])
        dc = dc_weiter + dh * a[t] * (1 - np.tanh(c[t]) ** 2)
        dz_e = dc * k[t] * e[t] * (1 - e[t])
        dz_v = dc * c_alt[t] * v[t] * (1 - v[t])
        dz_k = dc * e[t] * (1 - k[t] ** 2)
        dz = np.concatenate([dz_e, dz_v, dz_k, dz_a], axis=1)

        g["dc"][t] = dc
        g["x"][t] = dz @ ein["U"]
        g["U"] += dz.T @ x[t]
        g["W"] += dz.T @ h_alt[t]
        g["b"] += dz.sum(axis=0)
        g["p_e"] += (dz_e * c_alt[t]).sum(axis=0)
        g["p_v"] += (dz_v * c_alt[t]).sum(axis=0)
        g["p_a"] += (dz_a * c[t]).sum(axis=0)
        dh_weiter = dz @ ein["W"]
        dc_weiter = dc * v[t] + dz_e * ein["p_e"] + dz_v * ein["p_v"]
    return {**g, "h0": dh_weiter, "c0": dc_weiter}


def zwilling(ein):
    def schritt(zustand, jetzt):
        h, c = zustand
        x, dc = jetzt
        z_e, z_v, z_k, z_a = jnp.split(x @ ein["U"].T + h @ ein["W"].T + ein["b"], 4, axis=1)
        e = jax.nn.sigmoid(z_e + ein["p_e"] * c)
        v = jax.nn.sigmoid(z_v + ein["p_v"] * c)
        c = v * c + e * jnp.tanh(z_k) + dc
        a = jax.nn.sigmoid(z_a + ein["p_a"] * c)
        h = a * jnp.tanh(c)
        return (h, c), (h, c)

    _, (h, c) = jax.lax.scan(schritt, (ein["h0"], ein["c0"]), (ein["x"], ein["dc"]))
    return {"h": h, "c": c}


pair = Pair(
    name="peephole-lstm",
    inputs={
        **{"x": "T B D", "h0": "B H", "c0": "B H", "U": "4H D", "W": "4H H", "b": "4H"},
        **{"p_e": "H", "p_v": "H", "p_a": "H"},
    },
    outputs={"h": "T B H"},
    probes={"c": "T B H"},
    taps={"dc": "T B H"},
    states={"h0": "h", "c0": "c"},
    forward=vorwaerts,
    backward=rueckwaerts,
    twin=zwilling,
)

FIX = ("dc = dc_weiter + dh * a[t]", 'dc = dc_weiter + dz_a * ein["p_a"] + dh * a[t]')
STEP = "dc"
TERM = "the path through"
LINE = 'a = jax.nn.sigmoid(z_a + ein["p_a"] * c)'
