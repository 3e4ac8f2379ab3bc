"""Fixtures for every test: real servers, real workers."""

from __future__ import annotations

pytest_plugins = [
    "tests.docker_engine",
    "tests.servers",
    "tests.stack",
    "tests.containers",
]
