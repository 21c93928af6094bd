"""`python -m bptt_verify` is `bptt`."""

from bptt_command import main

main()
