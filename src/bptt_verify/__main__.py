"""`python -m bptt_verify` is `bptt`.

But for Ctrl-C in the first second: the package is loaded before any of this runs.
"""

from bptt_command import main

main()
