"""The built-in pairs: each hand-written layer beside its twin. One more cell is one more entry."""

from __future__ import annotations

from importlib.util import find_spec

import jax_ref.gru
import jax_ref.gru_before
import jax_ref.lstm
import jax_ref.lstm_norm
import jax_ref.mingru
import jax_ref.minlstm
import jax_ref.slstm
import manual_bptt.gru
import manual_bptt.gru_before
import manual_bptt.lstm
import manual_bptt.lstm_norm
import manual_bptt.mingru
import manual_bptt.minlstm
import manual_bptt.slstm
from bptt_verify.pair import Pair
from bptt_verify.pairs import by_jax
from bptt_verify.pairs.article import (
    SHOWN_BY,
    model_pair,
    readout_pair,
    rnn_pair,
    update_pair,
)
from bptt_verify.pairs.cells import Cell
from bptt_verify.pairs.sequences import (
    bidirectional_pair,
    chunked_pair,
    ragged_pair,
    stack_pair,
    windowed_pair,
    zoneout_pair,
)

__all__ = [
    "ARTICLE",
    "BY_NAME",
    "CELLS",
    "REGISTRY",
    "SHOWN_BY",
    "bidirectional_pair",
    "chunked_pair",
    "model_pair",
    "ragged_pair",
    "readout_pair",
    "rnn_pair",
    "stack_pair",
    "update_pair",
    "windowed_pair",
    "zoneout_pair",
]

_LSTM_WEIGHTS = {"U": "4H D", "W": "4H H", "b": "4H"}
_LSTM_SHOWN = {4: "c", 11: "delta", 13: "dW", 14: "dU db", 17: "dx dh0 dc0"}

_MINLSTM_SHOWN = {4: "h", 7: "delta", 9: "dU db", 10: "dx dh0"}

CELLS = {
    cell.name: cell
    for cell in (
        Cell(
            name="lstm",
            by_hand=manual_bptt.lstm,
            twin=jax_ref.lstm,
            weights=_LSTM_WEIGHTS,
            states={"h": "H", "c": "H"},
            taps={"delta": "4H"},
            options={"forget_offset": (0.0, 1.0)},
            shown={**_LSTM_SHOWN, 6: "h"},
        ),
        Cell(
            name="lstm-peephole",
            by_hand=manual_bptt.lstm,
            twin=jax_ref.lstm,
            weights={**_LSTM_WEIGHTS, "p": "3H"},
            states={"h": "H", "c": "H"},
            taps={"delta": "4H"},
            shown={**_LSTM_SHOWN, 6: "h", 15: "dp"},
        ),
        Cell(
            name="lstm-projection",
            by_hand=manual_bptt.lstm,
            twin=jax_ref.lstm,
            weights={**_LSTM_WEIGHTS, "W": "4H R", "P": "R H"},
            states={"h": "R", "c": "H"},
            taps={"delta": "4H"},
            shown={**_LSTM_SHOWN, 7: "h", 16: "dP"},
        ),
        Cell(
            name="lstm-norm",
            by_hand=manual_bptt.lstm_norm,
            twin=jax_ref.lstm_norm,
            weights={
                **_LSTM_WEIGHTS,
                **{"gamma_x": "4H", "gamma_h": "4H", "gamma_c": "H", "beta_c": "H"},
            },
            states={"h": "H", "c": "H"},
            taps={"delta": "4H"},
            shown={
                **{4: "c", 6: "h", 11: "delta", 13: "dgamma_x dgamma_h db"},
                **{14: "dgamma_c dbeta_c", 15: "dW", 16: "dU", 17: "dx dh0 dc0"},
            },
        ),
        Cell(
            name="gru",
            by_hand=manual_bptt.gru,
            twin=jax_ref.gru,
            weights={"U": "3H D", "W": "3H H", "b": "3H", "b_n": "H"},
            states={"h": "H"},
            taps={"delta": "3H", "epsilon": "3H"},
            shown={
                **{5: "h", 7: "delta", 10: "epsilon", 11: "dW db_n", 12: "dU db"},
                13: "dx dh0",
            },
        ),
        Cell(
            name="gru-before",
            by_hand=manual_bptt.gru_before,
            twin=jax_ref.gru_before,
            weights={"U": "3H D", "W": "3H H", "b": "3H"},
            states={"h": "H"},
            taps={"delta": "3H"},
            shown={5: "h", 7: "delta", 11: "dW", 12: "dU db", 13: "dx dh0"},
        ),
        Cell(
            name="mingru",
            by_hand=manual_bptt.mingru,
            twin=jax_ref.mingru,
            weights={"U": "2H D", "b": "2H"},
            states={"h": "H"},
            taps={"delta": "2H"},
            shown={4: "h", 6: "delta", 8: "dU db", 9: "dx dh0"},
        ),
        Cell(
            name="mingru-parallel",
            by_hand=manual_bptt.mingru,
            twin=jax_ref.mingru,
            weights={"U": "2H D", "b": "2H"},
            states={"h": "H"},
            taps={"delta": "2H"},
            options={"form": ("parallel",)},
            positive=("h0",),
            shown={4: "h", 6: "delta", 8: "dU db", 9: "dx dh0"},
        ),
        Cell(
            name="minlstm",
            by_hand=manual_bptt.minlstm,
            twin=jax_ref.minlstm,
            weights={"U": "3H D", "b": "3H"},
            states={"h": "H"},
            taps={"delta": "3H"},
            shown=_MINLSTM_SHOWN,
        ),
        Cell(
            name="minlstm-parallel",
            by_hand=manual_bptt.minlstm,
            twin=jax_ref.minlstm,
            weights={"U": "3H D", "b": "3H"},
            states={"h": "H"},
            taps={"delta": "3H"},
            options={"form": ("parallel",)},
            positive=("h0",),
            shown=_MINLSTM_SHOWN,
        ),
        Cell(
            name="slstm",
            by_hand=manual_bptt.slstm,
            twin=jax_ref.slstm,
            weights={"U": "4H D", "W": "4H H", "b": "4H"},
            states={"h": "H", "c": "H", "n": "H", "m": "H"},
            positive=("n0",),
            taps={"delta": "4H"},
            shown={
                **{3: "m", 6: "c", 7: "n", 8: "h", 15: "delta", 17: "dW", 18: "dU db"},
                19: "dx dh0 dc0 dn0 dm0",
            },
        ),
    )
}

ARTICLE = {
    pair.name: pair
    for pair in (
        rnn_pair(),
        rnn_pair(indices=True),
        readout_pair(),
        readout_pair(probabilities=True),
        model_pair(),
        update_pair(),
    )
}

REGISTRY: dict[str, Pair] = {
    **ARTICLE,
    **{
        pair.name: pair
        for pair in (
            *(cell.pair() for cell in CELLS.values()),
            ragged_pair(CELLS["lstm"]),
            ragged_pair(CELLS["gru"]),
            bidirectional_pair(CELLS["lstm"]),
            stack_pair(CELLS["lstm"], CELLS["gru"]),
            zoneout_pair(CELLS["lstm"]),
            windowed_pair(CELLS["gru"]),
            chunked_pair(CELLS["lstm"]),
        )
    },
}

BY_NAME = {**REGISTRY, **by_jax.pairs(CELLS)}
"""What can be asked for by name: those, and the layers on other engines that are installed."""

if find_spec("numba") is not None:
    from bptt_verify.pairs.compiled import PAIRS as COMPILED

    BY_NAME |= COMPILED
