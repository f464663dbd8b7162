"""Reads a tree of frozen dataclasses from YAML and the environment.

Follows Fabric's core/config and viper's environment overlay: a key `peer.listenAddress` is
overridden by the variable `CORE_PEER_LISTENADDRESS`, and an empty variable counts as unset.
"""

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml

from selvedge_common.config.bounds import BOUNDS, Bound
from selvedge_common.config.values import PARSERS, ConfigError

PREFIX = "CORE"
# Two typing errors in a name of average length are nearer than this. All of Fabric's own variables,
# of any release, that are none of ours are farther.
_MISSPELT = 0.92
Config = TypeVar("Config")


@dataclass(frozen=True)
class Like:
    """Of a list of sections, in `Annotated`: what one leaves out is as in another section.

    Attributes:
        section: the field of that section, which comes before the list.
    """

    section: str


@dataclass(frozen=True, slots=True)
class _Setting:
    """A value before it is typed, and the place to name when it is wrong."""

    value: Any
    source: str
    key: str


# A section before it is typed: folded key -> setting or section. The written key and the
# source of the section itself are kept for its own errors.
@dataclass(slots=True)
class _Section:
    source: str
    key: str
    items: dict[str, "_Setting | _Section"] = dataclasses.field(default_factory=dict)


def load(
    cls: type[Config],
    defaults: Traversable,
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Build `cls` from the packaged defaults, then `file`, then `CORE_*` variables.

    Args:
        cls: a frozen dataclass; nested dataclasses are sections. A field `listen_address`
            takes the key `listenAddress`: case and `_` do not matter. `Annotated` gives it
            another `Bound` than that of its type, or says what the sections of a list are `Like`.
        defaults: the packaged YAML; it must hold every key.
        file: the operator's YAML; it may hold any part of the tree.
        environ: variables named `CORE_` and the key path joined by `_`.

    Raises:
        ConfigError: one sentence naming the key, the value, its source and what is expected.
    """
    name = str(defaults)
    tree = _section(cls, _read(defaults, name), name, "")
    if file is not None:
        overlay = _section(cls, _read(file, str(file)), str(file), "", tree)
        _overlay(tree, overlay)
    return typing.cast(Config, _build(cls, tree, "", environ))


def variables(cls: type, section: str = PREFIX) -> Iterator[str]:
    """The variables that override the settings in `cls`, and those in the sections below it."""
    for folded, (_, hint) in _typed(cls).items():
        name = f"{section}_{folded.upper()}"
        nested = _dataclass_of(hint)
        if nested is not None:
            yield from variables(nested, name)
        else:
            yield name


def misspelt(environ: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    """The `CORE_` variables that are set, and are nearly one of `known`: which one was meant.

    What is like none of them is somebody else's: Fabric has many more, and Kubernetes makes some.
    """
    folded = {_fold(name): name for name in known}
    found = {}
    for variable, text in sorted(environ.items()):
        name = _fold(variable)
        if not text or not variable.startswith(f"{PREFIX}_") or folded.get(name) == variable:
            continue
        if close := difflib.get_close_matches(name, folded, n=1, cutoff=_MISSPELT):
            found[variable] = folded[close[0]]
    return found


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice instead of keeping the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            folded = _fold(str(key.value))
            if folded in seen:
                line = key.start_mark.line + 1
                raise ConfigError(
                    f"{self.name}, line {line}: the key {key.value} is given twice; keep one."
                )
            seen.add(folded)
        return super().construct_mapping(node, deep)


def _read(file: Traversable | Path, name: str) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {name} cannot be read: {error}.") from error
    loader = _Loader(text)
    loader.name = name
    try:
        return loader.get_single_data()
    except RecursionError:
        raise ConfigError(
            f"The configuration {name} is nested too deeply; write it like core.yaml."
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        # A ValueError is that of a value such as a date with a month 13.
        problem = " ".join(str(error).split())
        raise ConfigError(f"The configuration {name} is not valid YAML: {problem}.") from error
    finally:
        loader.dispose()


def _section(
    cls: type, data: Any, source: str, key: str, base: "_Setting | _Section | None" = None
) -> _Section:
    """Check the shape of one mapping against `cls`, without typing its values.

    `base` is the same section of the packaged defaults: it has the keys as they are spelled.
    """
    section = _Section(source, key)
    if data is None:
        return section
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source}: {key or 'the document'} must be a section of keys, not {data!r}."
        )
    fields = _typed(cls)
    below = base.items if isinstance(base, _Section) else {}
    for written, value in data.items():
        path = f"{key}.{written}" if key else str(written)
        folded = _fold(str(written))
        if folded not in fields:
            known = {
                name: below[name].key.rpartition(".")[2] if name in below else _camel(field)
                for name, (field, _) in fields.items()
            }
            raise ConfigError(f"{source}: unknown key {path}; {_nearest(folded, known)}.")
        hint = fields[folded][1]
        nested = _dataclass_of(hint)
        if nested is not None and not (value is None and _is_optional(hint)):
            section.items[folded] = _section(nested, value, source, path, below.get(folded))
        else:
            section.items[folded] = _Setting(value, source, path)
    return section


def _nearest(folded: str, known: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(folded, known, n=1, cutoff=0.6)
    if close:
        return f"perhaps {known[close[0]]} was meant"
    return f"known here: {', '.join(sorted(known.values()))}"


def _overlay(base: _Section, over: _Section) -> None:
    for name, item in over.items.items():
        below = base.items.get(name)
        if isinstance(item, _Section) and isinstance(below, _Section):
            _overlay(below, item)
        else:
            base.items[name] = item


def _build(
    cls: type,
    section: _Section,
    variable: str,
    environ: Mapping[str, str],
    base: object | None = None,
) -> Any:
    """Type a section. What it leaves out is as in `base`, an object of `cls`, if there is one."""
    values: dict[str, Any] = {}
    sources: dict[str, None] = {}  # in order, each once
    for folded, (field, hint) in _typed(cls).items():
        item = section.items.get(folded)
        name = f"{variable or PREFIX}_{folded.upper()}"
        key = item.key if item is not None else ".".join(filter(None, (section.key, _camel(field))))
        nested = _dataclass_of(hint)
        inherited = getattr(base, field, None)
        if item is None and base is not None:
            values[field] = inherited
            continue
        if nested is not None:
            values[field] = _build_section(
                nested, hint, item, key, name, environ, section.source, inherited
            )
            continue
        text = environ.get(name, "")
        like = _like(hint)
        if text:
            values[field] = _typed_value(hint, _from_text(hint, text, name, key), key, name)
            sources[name] = None
        elif isinstance(item, _Setting):
            elements_base = values[like.section] if like is not None else None
            values[field] = _typed_value(hint, item.value, key, item.source, elements_base)
            sources[item.source] = None
        else:
            raise ConfigError(f"{section.source}: the key {key} is missing; add it.")
    return _construct(cls, values, section.key, ", ".join(sources))


def _build_section(
    nested: type,
    hint: Any,
    item: "_Setting | _Section | None",
    key: str,
    name: str,
    environ: Mapping[str, str],
    source: str,
    base: object | None,
) -> Any:
    if isinstance(item, _Section):
        return _build(nested, item, name, environ, base)
    if item is None:
        raise ConfigError(f"{source}: the section {key} is missing; add it.")
    if any(variable.startswith(f"{name}_") and text for variable, text in environ.items()):
        return _build(nested, _Section("the environment", key), name, environ)
    return None


def _construct(cls: type, values: dict[str, Any], key: str, sources: str) -> Any:
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        # The dataclass's own check, made over several keys at once.
        where = ": ".join(filter(None, (sources, key)))
        raise ConfigError(f"{where}: {error}") from error


def _typed_value(hint: Any, value: Any, key: str, source: str, base: object | None = None) -> Any:
    try:
        return _convert(hint, value, key, source, base)
    except ConfigError:
        raise
    except ValueError as error:
        # `error` is what the value's own parser expects.
        raise ConfigError(f"{source}: {key} is {value!r}, but must be {error}.") from error


def _convert(hint: Any, value: Any, key: str, source: str, base: object | None = None) -> Any:
    hint = _listed(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_optional(hint):
        return None if value is None else _convert(_present(hint), value, key, source)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"one of {', '.join(map(str, arguments))}")
        return value
    if origin in (list, tuple):
        return origin(_convert_list(arguments[0], value, key, source, base))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError("a mapping of names to values")
        return {
            str(name): _typed_value(arguments[1], item, f"{key}.{name}", source)
            for name, item in value.items()
        }
    kind, bound = arguments if origin is Annotated else (hint, BOUNDS.get(hint))
    return _within(bound, PARSERS[kind](value))


def _within(bound: Bound | None, value: Any) -> Any:
    if bound is not None:
        bound.check(value)
    return value


def _convert_list(
    element: Any, value: Any, key: str, source: str, base: object | None
) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list")
    if not dataclasses.is_dataclass(element):
        return [_typed_value(element, item, f"{key}[{i}]", source) for i, item in enumerate(value)]
    nested = typing.cast(type, element)
    return [
        _build(nested, _section(nested, item, source, f"{key}[{i}]"), "", {}, base)
        for i, item in enumerate(value)
    ]


def _from_text(hint: Any, text: str, name: str, key: str) -> Any:
    """Give a variable's text the shape YAML would have given it."""
    hint = _present(_listed(hint))
    if typing.get_origin(hint) in (list, tuple):
        if dataclasses.is_dataclass(typing.get_args(hint)[0]):
            raise ConfigError(f"{name}: {key} is a list of sections; set it in the YAML file.")
        return [part.strip() for part in text.split(",") if part.strip()]
    if typing.get_origin(hint) is dict:
        raise ConfigError(f"{name}: {key} is a mapping; set it in the YAML file.")
    return text


def _fold(name: str) -> str:
    return name.replace("_", "").lower()


def _camel(field: str) -> str:
    first, *rest = field.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _typed(cls: type) -> dict[str, tuple[str, Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {_fold(field.name): (field.name, hints[field.name]) for field in dataclasses.fields(cls)}


def _is_optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType) and type(
        None
    ) in typing.get_args(hint)


def _present(hint: Any) -> Any:
    """The type inside Optional, or the type itself."""
    if not _is_optional(hint):
        return hint
    return next(choice for choice in typing.get_args(hint) if choice is not type(None))


def _like(hint: Any) -> Like | None:
    """What the sections of a list are like, if they are like another one."""
    notes = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    return next((note for note in notes if isinstance(note, Like)), None)


def _listed(hint: Any) -> Any:
    """The list itself of one whose sections are like another one."""
    return typing.get_args(hint)[0] if _like(hint) is not None else hint


def _dataclass_of(hint: Any) -> type | None:
    present = _present(hint)
    return present if dataclasses.is_dataclass(present) and isinstance(present, type) else None
