"""Step 7 from its definition.

(13) θ ← θ - η ∂L/∂θ
"""

from jax import Array


def sgd(theta: dict[str, Array], gradients: dict[str, Array], eta: Array) -> dict[str, Array]:
    """The plain update of every parameter."""
    return {name: theta[name] - eta * gradients[name] for name in theta}  # (13)
