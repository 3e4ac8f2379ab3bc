"""The error tree survives what it is sent through."""

from __future__ import annotations

import json
import pickle

import pytest
from celery import Celery
from celery.backends.base import BaseBackend

from recovery import errors


def every_error() -> list[type[errors.RecoveryError]]:
    found, waiting = [], [errors.RecoveryError]
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting += current.__subclasses__()
    return found


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[errors.RecoveryError]) -> None:
    error = kind("it broke", {"line": 3})

    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), copy.message, copy.facts) == (kind, "it broke", {"line": 3})


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_an_error_survives_celerys_json_results(kind: type[errors.RecoveryError]) -> None:
    app = Celery("errors", set_as_current=False)
    app.conf.update(result_serializer="json", accept_content=["json"])
    backend = BaseBackend(app=app)

    stored = json.loads(json.dumps(backend.prepare_exception(kind("it broke", {"line": 3}))))
    copy = backend.exception_to_python(stored)

    assert (type(copy), copy.message, copy.facts) == (kind, "it broke", {"line": 3})


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in every_error() if kind is not errors.RemedyError]

    assert len(codes) == len(set(codes))


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    for kind in every_error():
        assert kind.__name__ in errors.__doc__
