"""The hand-written layers run by JAX, on NumPy arrays: what `engine="jax"` takes.

Each is the derivation as `manual_bptt.jax` has it, compiled by XLA, in the clothes of the readable
module: the same arguments, checked by the same door, and the same results.
"""
