"""`python -m bptt_verify` is `bptt`."""

from bptt_verify.cli import main

main()
