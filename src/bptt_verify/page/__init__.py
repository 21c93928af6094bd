"""What a command found, as one page: it holds all it needs, opens offline, and asks nobody.

A page is made from the JSON alone, so that an old run can be looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError

from manual_bptt._files import replacing

Context = dict[str, Any]
"""What the template of a page is filled with."""

KINDS = {
    "verify": "bptt_verify.page.verify",
    "vectors check": "bptt_verify.page.verify",
    "mutants": "bptt_verify.page.mutants",
    "bench": "bptt_verify.page.bench",
    "gradients": "bptt_verify.page.gradients",
}
"""For each command whose JSON has a page, the module that makes a `context` of it."""


MALFORMED = (
    *(LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError),
    TemplateError,
)
"""What may come of data in which something is missing, or is of another kind."""


class PageError(ValueError):
    """The data are not what one of these commands writes."""


def render(data: Mapping[str, Any]) -> str:
    """The page of what `bptt COMMAND --json` wrote, as HTML.

    Raises `PageError` for other data.
    """
    command = data.get("command") if isinstance(data, Mapping) else None
    if not isinstance(command, str) or command not in KINDS:
        known = ", ".join(KINDS)
        raise PageError(f"expected what bptt writes with --json ({known}), got {_kind(data)}")
    module = import_module(KINDS[command])
    context: Callable[[Mapping[str, Any]], Context] = module.context
    environment = Environment(
        loader=PackageLoader("bptt_verify.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template(module.TEMPLATE)
    try:
        return template.render(command=command, versions=data["versions"], **context(data))
    except MALFORMED as error:
        raise PageError(
            f"expected what `bptt {command} --json` writes, got something that lacks part of it "
            f"({type(error).__name__}: {error})"
        ) from error


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write the page there, whole or not at all.

    Raises `OSError` where it cannot be written, and `PageError` as `render` does.
    """
    text = render(data)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _kind(data: object) -> str:
    if not isinstance(data, Mapping):
        return f"a {type(data).__name__}"
    if "command" in data:
        return f"command {data['command']!r}"
    return "an object without command"
