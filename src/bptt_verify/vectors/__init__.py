"""Golden vectors: cases with what the twin says of them and how far each entry may be off.

A port of a cell, in any language, reads the inputs, computes, and holds what it got against value
and band; nothing of this package is needed for that. The format is described in docs/vectors.md.
"""

from __future__ import annotations

from bptt_verify.vectors.check import Checked, check
from bptt_verify.vectors.files import FilesError
from bptt_verify.vectors.write import write

__all__ = ["Checked", "FilesError", "check", "write"]
