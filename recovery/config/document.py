"""YAML as written: the data, where each key stands, and ``${NAME}`` filled in.

The only reader of YAML. What is refused here is what a typed model would never see: duplicate
keys, variables that are not set, documents that are too large or not a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from recovery.errors import ConfigError

KeyPath: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 1024 * 1024
MAX_NODES = 50_000

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a file, for a person who will mend it."""

    file: str
    line: int
    key: str
    problem: str
    allowed: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " + (f"{self.key}: " if self.key else "")
        allowed = f"; allowed: {', '.join(self.allowed)}" if self.allowed else ""
        return f"{where}{self.problem}{allowed}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": self.line,
            "key": self.key,
            "problem": self.problem,
            "allowed": list(self.allowed),
        }


@dataclass(slots=True, kw_only=True)
class Document:
    """A parsed file: plain data, and the line of every key and item by its path."""

    file: str
    data: dict[str, Any]
    lines: dict[KeyPath, int]
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, path: KeyPath) -> int:
        """The line of a path, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def as_key(path: KeyPath) -> str:
    """``('a', 'b', 0)`` → ``a.b[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def failed(problems: list[Problem]) -> ConfigError:
    """One error for all problems, a line each."""
    return ConfigError(
        "\n".join(str(problem) for problem in problems),
        {"problems": [problem.as_dict() for problem in problems]},
    )


def read(path: Path, environ: Mapping[str, str]) -> Document:
    """Parse a file; raises ``ConfigError`` where nothing of it can be used."""
    return _Reader(str(path), environ).read(_text(path))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _whole(path, f"larger than {MAX_BYTES} bytes")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise _whole(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _whole(path, f"not UTF-8 at byte {error.start}") from error


def _whole(path: Path, problem: str) -> ConfigError:
    return failed([Problem(file=str(path), line=1, key="", problem=problem)])


class _Reader:
    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self.file = file
        self.environ = environ
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []
        self.nodes = 0

    def read(self, text: str) -> Document:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise failed([self._problem(line, (), f"not YAML: {error.problem}")]) from error
        except yaml.YAMLError as error:
            raise failed([self._problem(1, (), f"not YAML: {error}")]) from error
        if not isinstance(root, yaml.MappingNode):
            raise failed([self._problem(1, (), "must be a mapping of sections")])
        data = self._mapping(root, ())
        return Document(file=self.file, data=data, lines=self.lines, problems=self.problems)

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise failed([self._problem(_line(node), path, f"more than {MAX_NODES} values")])
        self.lines.setdefault(path, _line(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            below = (*path, key)
            if key in found:
                first = self.lines[below]
                self.problems.append(
                    self._problem(
                        _line(key_node), below, f"stands here twice, first in line {first}"
                    )
                )
                continue
            self.lines[below] = _line(key_node)
            found[key] = self._value(value_node, below)
        return found

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        value = yaml.SafeLoader("").construct_object(node)
        if not isinstance(value, str) or "${" not in value:
            return value
        return _VARIABLE.sub(lambda match: self._variable(match, node, path), value)

    def _variable(self, match: re.Match[str], node: yaml.Node, path: KeyPath) -> str:
        name = match[1]
        default: str | None = match[2]
        value = self.environ.get(name, default)
        if value is None:
            problem = f"the environment variable {name} is not set and has no default"
            self.problems.append(self._problem(_line(node), path, problem))
            return ""
        return value

    def _problem(self, line: int, path: KeyPath, text: str) -> Problem:
        return Problem(file=self.file, line=line, key=as_key(path), problem=text)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
