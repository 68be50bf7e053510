"""Immutable, typed configurations: nested values under dotted keys, changed by flags and patterns.

The default value of a key decides its type: bool, int, float, str, or a sequence of one of these.
A key that accepts several kinds of values (a number or a schedule, one of a few words) is given a
`Kind` by pattern. An int key accepts floats without a fraction (`1e6`), a float key accepts ints;
apart from this nothing is converted, so that `True` never passes for 1 nor `"3"` for 3.
"""

import dataclasses
import difflib
import io
import math
import numbers
import os
import pathlib
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLError

from common.files import write_atomically

# What ruamel.yaml raises for a text that is none, or for a value that is not of its tag.
_NO_YAML = (YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
MOST_LEVELS = 20  # of sections; a YAML file may refer to itself


class ConfigError(ValueError):
    """A key or a value that the configuration does not accept; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """The values that a key accepts.

    expected: what is accepted, in words, for messages and help.
    convert: takes a Python value and returns the one to store; raises ValueError or TypeError.
    literal: on the command line the word is the value, not YAML (so that `--task 5` is a string).
    element: the kind of the elements, for sequences only.
    bounds: the numbers that are accepted, `LOW .. HIGH`; empty where any or none is.
    bare: what a flag without a value means; None where it needs one.
    """

    expected: str
    convert: Callable[[Any], Any]
    literal: bool = False
    element: "Kind | None" = None
    bounds: str = ""
    bare: Any = None

    def read(self, words: Sequence[str]) -> Any:
        """The Python value that these words of a command line stand for, not yet converted."""
        if self.element and not (len(words) == 1 and words[0].lstrip().startswith("[")):
            return [self.element.read([word]) for word in words]
        if len(words) != 1:
            raise ValueError(f"{len(words)} values")
        return words[0] if self.literal else parse_yaml(words[0])


def boolean() -> Kind:
    """True or False."""

    def convert(value):
        if not isinstance(value, bool):
            raise TypeError
        return value

    return Kind("True or False", convert, bare=True)


def number(low: float = -math.inf, high: float = math.inf) -> Kind:
    """A finite float in [low, high]; ints are converted."""

    def convert(value):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError
        try:
            result = float(value)
        except OverflowError:
            raise ValueError from None
        if not low <= result <= high or not math.isfinite(result):
            raise ValueError
        return result

    return Kind("a number" + _limits(low, high), convert, bounds=_bounds(low, high))


def integer(low: float = -math.inf, high: float = math.inf) -> Kind:
    """An int in [low, high]; floats without a fraction are converted."""

    def convert(value):
        if not number(low, high).convert(value).is_integer():
            raise ValueError
        return int(value)

    return Kind("a whole number" + _limits(low, high), convert, bounds=_bounds(low, high))


def string(pattern: str = "(?s:.*)", expected: str = "a string") -> Kind:
    """A string that the pattern matches as a whole."""

    def convert(value):
        if not isinstance(value, str):
            raise TypeError
        value.encode()  # ValueError for bytes of a command line that are no UTF-8
        if not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return Kind(expected, convert, literal=True)


def checked(check: Callable[[str], Any], expected: str) -> Kind:
    """A string that `check` takes; it raises ValueError for any other."""

    def convert(value):
        if not isinstance(value, str):
            raise TypeError
        value.encode()
        check(value)
        return value

    return Kind(expected, convert, literal=True)


def regex() -> Kind:
    """A string that is a regular expression."""

    def convert(value):
        try:
            re.compile(value)
            value.encode()
        except re.error as error:
            raise ValueError from error
        return value

    return Kind("a regular expression", convert, literal=True)


def choice(*values: Any) -> Kind:
    """One of these values, of the same type as listed."""

    def convert(value):
        for accepted in values:
            if value == accepted and isinstance(value, bool) == isinstance(accepted, bool):
                return accepted
        raise ValueError

    return Kind(" or ".join(map(str, values)), convert)


def name(*names: str) -> Kind:
    """One of these names, in upper or lower case; stored as it is spelt here."""
    spelt = {name.lower(): name for name in names}

    def convert(value):
        if not isinstance(value, str) or value.lower() not in spelt:
            raise ValueError
        return spelt[value.lower()]

    return Kind(" or ".join(names), convert, literal=True)


def either(*kinds: Kind) -> Kind:
    """What any of these kinds accepts; the first that does converts."""

    def convert(value):
        for kind in kinds:
            try:
                return kind.convert(value)
            except (ValueError, TypeError):
                continue
        raise ValueError

    bounds = " or ".join(kind.bounds for kind in kinds if kind.bounds)
    return Kind(" or ".join(kind.expected for kind in kinds), convert, bounds=bounds)


def sequence(element: Kind, length: int | None = None, least: int = 0) -> Kind:
    """A list or tuple of `length` values of one kind, or of at least `least`; becomes a tuple."""

    def convert(value):
        if not isinstance(value, list | tuple):
            raise TypeError
        if len(value) < least or length is not None and len(value) != length:
            raise ValueError
        return tuple(map(element.convert, value))

    count = f"{length} " if length is not None else f"at least {least} " if least else ""
    expected = f"a list of {count}values, each {element.expected}"
    return Kind(expected, convert, element=element, bounds=element.bounds)


def kind_of(default: Any) -> Kind:
    """The kind that a default value stands for."""
    if isinstance(default, bool):
        return boolean()
    if isinstance(default, numbers.Integral):
        return integer()
    if isinstance(default, numbers.Real):
        return number()
    if isinstance(default, str):
        return string()
    if isinstance(default, list | tuple):
        return sequence(kind_of(default[0]) if default else string())
    raise TypeError(f"{default!r} does not say of which type the values are")


class Config(Mapping):
    """Nested configuration values that cannot be changed in place.

    `config.rssm.deter`, `config["rssm.deter"]` and `config["rssm"]["deter"]` are the same value;
    `config.rssm` is a `Config` of its own. Iteration is over the names of the top level.

    Args:
      values: defaults, nested or under dotted keys.
      kinds: pattern of dotted keys -> `Kind`, for keys whose default does not say enough. The
        first pattern that matches the whole key counts.
      open_maps: name of a section -> `Kind` of its values, for sections to which `update` may add
        names that have no default.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        kinds: Mapping[str, Kind] | None = None,
        open_maps: Mapping[str, Kind] | None = None,
    ):
        flat, chosen = {}, {}
        for key, value in flatten(values).items():
            matches = (kind for name, kind in (kinds or {}).items() if re.fullmatch(name, key))
            section = _open_kind(key, open_maps or {})
            try:
                chosen[key] = next(matches, None) or section or kind_of(value)
            except TypeError as error:
                raise ConfigError(f"{key}: {error}") from None
            flat[key] = _convert(key, value, chosen[key])
        self._set(flat, chosen, dict(open_maps or {}))

    def _set(self, flat, kinds, open_maps):
        object.__setattr__(self, "_flat", flat)
        object.__setattr__(self, "_kinds", kinds)
        object.__setattr__(self, "_open_maps", open_maps)
        return self

    @property
    def flat(self) -> dict[str, Any]:
        """Dotted key -> value, in the order of the defaults."""
        return dict(self._flat)

    def nested(self) -> dict[str, Any]:
        """Plain nested dictionaries, with tuples as lists: ready for YAML or JSON."""
        result: dict[str, Any] = {}
        for key, value in self._flat.items():
            *parents, name = key.split(".")
            section = result
            for parent in parents:
                section = section.setdefault(parent, {})
            section[name] = list(value) if isinstance(value, tuple) else value
        return result

    def kind(self, key: str) -> Kind:
        """The kind of values that a dotted key accepts; ConfigError if there is no such key."""
        kind = self._kinds.get(key) or _open_kind(key, self._open_maps)
        if kind is not None:
            return kind
        raise ConfigError(self._unknown(key))

    def update(self, changes: Mapping[str, Any]) -> "Config":
        """A new configuration with some values changed, in the order given.

        A key is dotted, or the name of a section with a mapping as value, or a regular expression:
        one with a character that no key has, which must match the whole of at least one key.
        """
        flat, kinds = dict(self._flat), dict(self._kinds)
        for name, value in flatten(changes).items():
            for key in self._matching(name):
                kinds[key] = self.kind(key)
                flat[key] = _convert(key, value, kinds[key])
        return Config.__new__(Config)._set(flat, kinds, self._open_maps)

    def update_flags(self, flags: Sequence[tuple[str, Sequence[str]]]) -> "Config":
        """A new configuration with flags from `split_flags` applied, in the order given.

        `--key value`, `--key=value`, `--key 1 2 3` or `--key "[1, 2, 3]"` for lists,
        `--section "{name: value}"`, and `--pattern value` for all keys that the pattern matches.
        `--key` alone for True.
        """
        config = self
        for name, words in flags:
            if not words and name in self._flat and self.kind(name).bare is not None:
                words = [str(self.kind(name).bare)]
            if not words:
                raise ConfigError(f"--{name} has no value; write --{name} VALUE")
            if name not in self._flat and self._is_section(name):
                value = parse_yaml(" ".join(words))
                if not isinstance(value, Mapping):
                    raise ConfigError(self._unknown(name))
                config = config.update({name: value})
                continue
            for key in self._matching(name):
                config = config.update({key: _read(key, words, self.kind(key))})
        return config

    def save(self, path: str | os.PathLike) -> None:
        """Writes the values as YAML, atomically."""
        with write_atomically(path) as file:
            file.write(dump_yaml(self.nested()).encode("utf-8"))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Config":
        """Values that `save` wrote, with the types that they have; ConfigError if it is no such
        file. Update the defaults with the result to have the values checked."""
        return cls(load_yaml(path))

    def __getitem__(self, key: str) -> Any:
        if key in self._flat:
            return self._flat[key]
        if not self._is_section(key):
            raise KeyError(self._unknown(key))
        start = key + "."
        flat = {k[len(start) :]: v for k, v in self._flat.items() if k.startswith(start)}
        kinds = {k[len(start) :]: v for k, v in self._kinds.items() if k.startswith(start)}
        open_maps = {"": self._open_maps[key]} if key in self._open_maps else {}
        return Config.__new__(Config)._set(flat, kinds, open_maps)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError(f"A Config cannot be changed; use update({{{name!r}: {value!r}}}).")

    def __delattr__(self, name: str) -> None:
        raise TypeError(f"A Config cannot be changed; {name!r} stays.")

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.split(".")[0] for key in self._flat))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Config({self.nested()})"

    def __str__(self) -> str:
        return dump_yaml(self.nested())

    def _is_section(self, key: str) -> bool:
        return key in self._open_maps or any(k.startswith(key + ".") for k in self._flat)

    def _matching(self, name: str) -> list[str]:
        if name in self._flat or re.fullmatch(r"[\w.-]*", name):
            self.kind(name)
            return [name]
        try:
            keys = [key for key in self._flat if re.fullmatch(name, key)]
        except re.error as error:
            raise ConfigError(f"{name} is not a regular expression: {error}") from None
        if not keys and _open_kind(name, self._open_maps):
            return [name]  # a name with a slash or a space
        if not keys:
            raise ConfigError(self._unknown(name))
        return keys

    def _unknown(self, key: str) -> str:
        if self._is_section(key):
            names = ", ".join(k for k in self._flat if k.startswith(key + "."))
            return f"{key} is a section with the keys {names}; set one of these or give a mapping"
        return f"unknown key {key}" + nearest(key, self._flat)


def _open_kind(key: str, open_maps: Mapping[str, Kind]) -> Kind | None:
    """The kind of a key in a section that takes any name, also one with dots."""
    for section, kind in open_maps.items():
        start = section and section + "."
        if key.startswith(start) and key != start:
            return kind
    return None


def nearest(name: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    """The end of a message about an unknown name: up to three names that look like it."""
    last = {known.rpartition(".")[2]: known for known in names}
    close = difflib.get_close_matches(name, list(names), 3, 0.6)
    close += [last[n] for n in difflib.get_close_matches(name.rpartition(".")[2], last, 3, 0.75)]
    close = list(dict.fromkeys(close))[:3]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def flatten(values: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Nested mappings -> dotted keys; ConfigError for mappings that hold themselves."""
    if depth > MOST_LEVELS:
        raise ConfigError(f"sections are nested more than {MOST_LEVELS} deep")
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(key, str):
            raise ConfigError(f"{key!r} is not the name of a key")
        if isinstance(value, Mapping):
            flat.update({f"{key}.{name}": leaf for name, leaf in flatten(value, depth + 1).items()})
        else:
            flat[key] = value
    return flat


def split_flags(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """`["--a", "1", "2", "--b=3"]` -> `[("a", ["1", "2"]), ("b", ["3"])]`."""
    flags: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            flags.append((name, [value] if equals else []))
        elif not flags:
            raise ConfigError(f"{word!r} belongs to no flag; flags are written --KEY VALUE")
        else:
            flags[-1][1].append(word)
    return flags


def parse_yaml(text: str) -> Any:
    """The value of a YAML 1.2 text, or the text itself when it is not YAML."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except _NO_YAML:
        return text


def load_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError that names the file if there is none in it."""
    try:
        values = YAML(typ="safe", pure=True).load(pathlib.Path(path).read_text(encoding="utf-8"))
    except _NO_YAML as error:
        raise ConfigError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not hold a mapping from keys to values")
    return values


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Nested mappings as YAML, lists on one line each."""

    def prepare(value):
        if isinstance(value, Mapping):
            return {key: prepare(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            value = CommentedSeq(value)
            value.fa.set_flow_style()
        return value

    stream = io.StringIO()
    YAML().dump(prepare(values), stream)
    return stream.getvalue()


def _convert(key: str, value: Any, kind: Kind) -> Any:
    try:
        return kind.convert(value)
    except (ValueError, TypeError):
        message = f"{key}: {reprlib.repr(value)} is not accepted; expected {kind.expected}"
        raise ConfigError(message) from None


def _read(key: str, words: Sequence[str], kind: Kind) -> Any:
    try:
        return kind.read(words)
    except ValueError:
        message = f"{key}: {' '.join(words)!r} is not accepted; expected {kind.expected}"
        raise ConfigError(message) from None


def _limits(low: float, high: float) -> str:
    if low > -math.inf and high < math.inf:
        return f" from {_number(low)} to {_number(high)}"
    if low > -math.inf:
        return f" of at least {_number(low)}"
    return f" of at most {_number(high)}" if high < math.inf else ""


def _bounds(low: float, high: float) -> str:
    return f"{_number(low)} .. {_number(high)}" if high - low < math.inf else ""


def _number(value: float) -> str:
    """In as few characters as are exact: 1e12, 2147483647, 0.5."""
    short = re.sub(r"e\+?(-?)0*", r"e\1", f"{value:g}")
    return short if float(short) == value else str(int(value))
