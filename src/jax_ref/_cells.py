"""What a cell is to whatever is made of cells: its states are one array, or several."""

from typing import Any

from jax import Array


def tupled(states: Any) -> tuple[Array, ...]:
    """The states of a cell one by one, also of one that has a single one."""
    return states if isinstance(states, tuple) else (states,)
