"""The machine that a benchmark runs on, as far as it says what it is."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "fma", "avx512f", "asimd", "sve")
"""Of what a processor may have, those that decide how wide its products are."""


def machine(cores: int, threads: int) -> dict[str, Any]:
    """What it is, as JSON has it: of its cores, so many `threads` are used.

    What the system does not say is left out: vectors, caches (each a level and its size) and memory
    (GiB).
    """
    return {"cpu": _cpu(), "cores": cores, "threads": threads, **_vectors(), **_sizes()}


def sentence(machine: dict[str, Any]) -> str:
    """The same to be read. Runs of before have less to say."""
    said = [machine["cpu"], f"{machine['threads']} of {machine['cores']} cores"]
    said += [", ".join(machine[name]) for name in ("vectors", "caches") if machine.get(name)]
    if "memory" in machine:
        said.append(f"{machine['memory']:.0f} GiB")
    return ", ".join(said)


def _cpu() -> str:
    name = _in_cpuinfo("model name")
    return name or platform.processor() or platform.machine()


def _vectors() -> dict[str, Any]:
    has = (_in_cpuinfo("flags") or _in_cpuinfo("Features") or "").split()
    found = [flag for flag in FLAGS if flag in has]
    return {"vectors": found} if found else {}


def _in_cpuinfo(key: str) -> str | None:
    """What Linux says of the first core under that key."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    found = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else None


def _sizes() -> dict[str, Any]:
    found: dict[str, Any] = {}
    caches = []
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (cache / of for of in ("level", "type", "size"))
        if size.exists() and kind.read_text().strip() != "Instruction":
            caches.append(f"L{level.read_text().strip()} {size.read_text().strip()}")
    if caches:
        found["caches"] = caches
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        found["memory"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return found
