"""Finding and loading a policy file, with every problem said at once and in its place."""

from __future__ import annotations

import difflib
import os
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from recovery import places
from recovery.config import consistency, document
from recovery.config.document import Document, KeyPath, Problem, as_key, failed
from recovery.config.model import policy_document
from recovery.config.policy import Policy

FILE_NAME = "recovery_config.yml"


def find_policy_file(environ: Mapping[str, str] | None = None) -> Path:
    """``$RECOVERY_CONFIG``, else here, else ``/etc/recovery``, else the one that is shipped."""
    found = os.environ if environ is None else environ
    if chosen := found.get("RECOVERY_CONFIG"):
        return Path(chosen)
    package = Path(__file__).resolve().parent.parent
    usual = (Path(FILE_NAME), Path("/etc/recovery") / FILE_NAME, package / FILE_NAME)
    return next((path for path in usual if path.is_file()), package.parent / FILE_NAME)


def load_policy(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Policy:
    """Load and check a policy file; raises ``ConfigError`` with all that is wrong with it."""
    found = os.environ if environ is None else environ
    file = path or find_policy_file(found)
    parsed = document.read(file, found)
    problems = list(parsed.problems)
    checked = None
    try:
        checked = policy_document().model_validate(parsed.data)
    except ValidationError as error:
        problems += _problems(parsed, error)
    if checked is None or problems:
        raise failed(sorted(problems, key=lambda problem: problem.line))
    policy = Policy(checked, file, places.host_name(found))
    if faults := [_located(parsed, *fault) for fault in consistency.faults(policy)]:
        raise failed(faults)
    return policy


@cache
def current_policy() -> Policy:
    """The policy of this process, loaded once."""
    return load_policy()


def _located(parsed: Document, path: KeyPath, text: str, allowed: tuple[str, ...] = ()) -> Problem:
    return Problem(
        file=parsed.file,
        line=parsed.line_of(path),
        key=as_key(path),
        problem=text,
        allowed=allowed,
    )


def _problems(parsed: Document, error: ValidationError) -> Iterator[Problem]:
    for detail in error.errors(include_url=False, include_input=False):
        path = _as_written(parsed.data, detail["loc"])
        text, allowed = _explain(detail, path)
        yield Problem(
            file=parsed.file,
            line=parsed.line_of(path),
            key=as_key(path),
            problem=text,
            allowed=allowed,
        )


def _as_written(written: Any, location: KeyPath) -> KeyPath:
    """The location without the parts that only the model knows, such as a strategy's tag."""
    path: list[str | int] = []
    data = written
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        if (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        ):
            data = cast("Any", data)[part]
        elif not (is_last and isinstance(data, dict)):
            continue
        path.append(part)
    return tuple(path)


def _explain(detail: Any, path: KeyPath) -> tuple[str, tuple[str, ...]]:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = tuple(sorted(_keys_at(detail["loc"][:-1])))
        near = difflib.get_close_matches(str(path[-1]) if path else "", allowed, n=1)
        return "unknown key" + (f", did you mean {near[0]}?" if near else ""), allowed
    if kind == "missing":
        return "is required", ()
    if kind in ("literal_error", "union_tag_invalid"):
        expected = str(context.get("expected") or context.get("expected_tags") or "")
        names = tuple(part.strip(" '") for part in expected.replace(" or ", ", ").split(","))
        return "has a value that is not known", names
    if kind == "value_error":
        return str(context.get("error", detail["msg"])), ()
    return detail["msg"][0].lower() + detail["msg"][1:], ()


def _keys_at(location: KeyPath) -> set[str]:
    """The keys that the model knows at a location of an error."""
    models: list[Any] = [policy_document()]
    for part in location:
        models = [found for model in models for found in _below(model, part)]
    return {name for model in models if _is_model(model) for name in model.model_fields}


def _below(annotation: Any, part: str | int) -> Iterator[Any]:
    """What an annotation holds under a key, an index or the tag of a union."""
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        if field is not None:
            yield from _plain(field.annotation)
        elif _is_tag_of(annotation, part):
            yield annotation
        return
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict:
        yield from _plain(inner[1])
    elif origin is tuple:
        yield from _plain(inner[0])


def _plain(annotation: Any) -> Iterator[Any]:
    """The members of unions and of ``Annotated``."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _plain(typing.get_args(annotation)[0])
    elif origin is typing.Union or str(origin) == "<class 'types.UnionType'>":
        for member in typing.get_args(annotation):
            yield from _plain(member)
    else:
        yield annotation


def _is_tag_of(model: type[BaseModel], part: str | int) -> bool:
    tags = (model.model_fields.get(name) for name in ("name", "kind"))
    return any(tag is not None and part in typing.get_args(tag.annotation) for tag in tags)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
