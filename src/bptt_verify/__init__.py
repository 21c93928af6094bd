"""Verify a hand-written backward pass against a JAX forward pass that has no gradient formula."""

from bptt_verify.pair import Equation, Index, Mask, Odd, Pair, Probability
from bptt_verify.report import Report
from bptt_verify.testing import assert_verified, verified
from bptt_verify.verify import verify

__all__ = [
    "Equation",
    "Index",
    "Mask",
    "Odd",
    "Pair",
    "Probability",
    "Report",
    "assert_verified",
    "verified",
    "verify",
]
