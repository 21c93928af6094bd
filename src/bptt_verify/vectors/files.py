"""A set of vectors on disk: one file of tensors for each pair and dtype, and an index of them.

What is read may be damaged or meant to do harm. Nothing in it is run or unpickled, and no path in
it is followed: the name of a file follows from a pair and a dtype.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from bptt_verify.compare import Wrong
from bptt_verify.tolerance import DTYPES

Array = NDArray[Any]

FORMAT = 1
"""The version that is written, and the newest that is read."""

INDEX = "index.json"
LONGEST_INDEX = 2**26
"""Bytes of an index: more is none of ours."""

MARK = "bptt-vectors"
"""The one word of metadata in a file of tensors: its value is the version of the format."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Of a pair or a case."""

KINDS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""The names of dtypes in a file of tensors."""


class FilesError(ValueError):
    """A file that cannot be read: not there, damaged, of a newer format, or no such file."""


class Vector(NamedTuple):
    """What is expected of one quantity of one case."""

    value: Array
    band: Array
    """How far each entry may be off, in the same unit; 0 where it has to be equal."""


@dataclass(frozen=True)
class Entry:
    """One file of a set: a pair in a dtype."""

    pair: str
    dtype: str
    quantities: tuple[str, ...]
    """Causes before effects."""
    cases: Mapping[str, str]
    """The recipe of each case: sizes, options, how the arrays are filled, the seed."""
    left_out: Mapping[str, str]
    """Cases that no draw allowed a verdict on, and why."""
    sha256: str

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"{self.pair}-{self.dtype}.safetensors"

    @property
    def part(self) -> str:
        """What the names of its tensors begin with."""
        return f"{self.pair}/{self.dtype}"


@dataclass(frozen=True)
class Index:
    """What a set consists of."""

    seed: int
    entries: tuple[Entry, ...]
    versions: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        files = [{"file": entry.file, **asdict(entry)} for entry in self.entries]
        found = {"format": FORMAT, "seed": self.seed, "files": files}
        return {**found, "versions": dict(self.versions)}


def packed(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as a file of tensors; the same arrays give the same bytes."""
    # with a second word of metadata the order of the two would be left to chance
    whole = {name: np.require(a, requirements="C") for name, a in arrays.items()}
    return save(whole, metadata={MARK: str(FORMAT)})


def write_index(folder: Path, index: Index) -> None:
    """Write the index of a set."""
    text = json.dumps(index.plain(), indent=2, ensure_ascii=False)
    (folder / INDEX).write_text(f"{text}\n", encoding="utf-8")


def digest(content: bytes) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_index(folder: Path) -> Index:
    """The index of a set.

    Raises `FilesError` for anything that this module would not have written, and for a newer
    format.
    """
    path = folder / INDEX
    content = _content(path, LONGEST_INDEX)
    try:
        data = json.loads(content, object_pairs_hook=_once)
    except RecursionError:
        raise FilesError(f"{path}: damaged: nested too deeply") from None
    except ValueError as error:
        raise FilesError(f"{path}: damaged: {error}") from None
    found = _Fields(str(path), data)
    version = found.get("format", int)
    if version > FORMAT:
        raise FilesError(f"{path}: format {version} is newer than {FORMAT}, the newest read here")
    if version < 1:
        raise FilesError(f"{path}: damaged: format: expected at least 1, got {version}")
    entries = tuple(
        _entry(_Fields(f"{path}: files[{k}]", fields))
        for k, fields in enumerate(found.get("files", list))
    )
    parts = [entry.part for entry in entries]
    for part in parts:
        if parts.count(part) > 1:
            raise FilesError(f"{path}: damaged: {part} is there twice")
    return Index(found.get("seed", int), entries, found.texts("versions"))


def read_vectors(folder: Path, entry: Entry) -> dict[str, dict[str, Vector]]:
    """Value and band of every quantity, by case.

    Raises `FilesError` when the file is not the one in the index, or not what a set holds.
    """
    path = folder / entry.file
    content = _content(path)
    if digest(content) != entry.sha256:
        raise FilesError(f"{path}: damaged: its SHA-256 is not the one in {INDEX}")
    arrays = _unpacked(path, content)
    if (version := _metadata(content).get(MARK)) != str(FORMAT):
        raise FilesError(f"{path}: expected format {FORMAT} in its metadata, got {version}")

    def array(name: str) -> Array:
        found = arrays.get(name)
        if not isinstance(found, np.ndarray) or found.dtype != np.float64 or not found.size:
            raise FilesError(f"{path}: damaged: {name}: expected a tensor F64, not empty")
        return found

    def vector(case: str, quantity: str) -> Vector:
        prefix = f"{entry.part}/{case}"
        value, band = array(f"{prefix}/expected/{quantity}"), array(f"{prefix}/band/{quantity}")
        sound = value.shape == band.shape and np.isfinite(value).all() and np.isfinite(band).all()
        if not sound or (band < 0).any():
            raise FilesError(
                f"{path}: damaged: {prefix}/band/{quantity}: expected finite numbers of at least "
                "0, one for each value"
            )
        return Vector(value, band)

    return {case: {name: vector(case, name) for name in entry.quantities} for case in entry.cases}


def read_tensors(path: Path) -> dict[str, Array | Wrong]:
    """The tensors of any file; a dtype that no array here has is `Wrong`.

    Raises `FilesError` when the file is not there, damaged, or names a tensor twice.
    """
    return _unpacked(path, _content(path))


def _content(path: Path, longest: int | None = None) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise FilesError(f"{path}: expected a file, got something else")
        if longest is not None and path.stat().st_size > longest:
            raise FilesError(f"{path}: damaged: longer than {longest} bytes")
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise FilesError(f"{path}: {getattr(error, 'strerror', 'too large')}") from None


def _unpacked(path: Path, content: bytes) -> dict[str, Array | Wrong]:
    try:
        tensors = deserialize(content)  # type: ignore[no-untyped-call]
        # a name that stands twice would hide a tensor
        json.loads(_header(content), object_pairs_hook=_once)
    except (SafetensorError, ValueError, RecursionError) as error:
        why = "".join(c if c.isprintable() else "?" for c in str(error))  # it may quote a name
        raise FilesError(f"{path}: no safetensors file, or damaged: {why}") from None
    return {name: _array(**fields) for name, fields in tensors}


def _header(content: bytes) -> bytes:
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def _metadata(content: bytes) -> dict[str, str]:
    """The words beside the tensors, of a file that is none too damaged to read."""
    found: dict[str, str] = json.loads(_header(content)).get("__metadata__", {})
    return found


def _array(dtype: str, shape: list[int], data: bytes) -> Array | Wrong:
    if dtype not in KINDS:
        return Wrong(f"got dtype {dtype}")
    return np.frombuffer(data, KINDS[dtype]).reshape(shape)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(found := dict(pairs)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


class _Fields:
    """An object of the index, whose fields are what they have to be."""

    def __init__(self, where: str, data: object) -> None:
        self.where, self.data = where, data

    def error(self, name: str, expected: str, got: object) -> FilesError:
        return FilesError(f"{self.where}: damaged: {name}: expected {expected}, got {_brief(got)}")

    def get(self, name: str, kind: type) -> Any:
        if not isinstance(self.data, dict):
            raise FilesError(f"{self.where}: damaged: expected an object, got {_brief(self.data)}")
        if name not in self.data:
            raise FilesError(f"{self.where}: damaged: no {name}")
        value = self.data[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(
                name, {int: "a whole number", str: "text"}.get(kind, kind.__name__), value
            )
        return value

    def name(self, name: str) -> str:
        value = self.get(name, str)
        if not NAME.fullmatch(value):
            raise self.error(name, "a name of letters, digits, '.', '_' and '-'", value)
        return value

    def texts(self, name: str) -> dict[str, str]:
        """An object of texts."""
        found = self.get(name, dict)
        for value in found.values():
            if not isinstance(value, str) or not value.isprintable():
                raise self.error(name, "texts on one line", value)
        return found

    def cases(self, name: str) -> dict[str, str]:
        found = self.texts(name)
        for case in found:
            if not NAME.fullmatch(case):
                raise self.error(name, "names of letters, digits, '.', '_' and '-'", case)
        return found


def _entry(found: _Fields) -> Entry:
    dtype = found.get("dtype", str)
    if dtype not in DTYPES:
        raise found.error("dtype", " or ".join(DTYPES), dtype)
    quantities = found.get("quantities", list)
    for name in quantities:
        if not isinstance(name, str) or not name.isprintable():
            raise found.error("quantities", "texts on one line", name)
    if len(set(quantities)) < len(quantities):
        raise found.error("quantities", "each once", quantities)
    entry = Entry(
        pair=found.name("pair"),
        dtype=dtype,
        quantities=tuple(quantities),
        cases=found.cases("cases"),
        left_out=found.cases("left_out"),
        sha256=found.get("sha256", str),
    )
    if found.get("file", str) != entry.file:  # no path of the index is ever followed
        raise found.error("file", entry.file, found.get("file", str))
    return entry


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
