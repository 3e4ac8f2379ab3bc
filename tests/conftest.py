"""Fixtures for every test: real servers, real workers."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A loaded machine is slow, which says nothing of what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

pytest_plugins = [
    "tests.docker_engine",
    "tests.servers",
    "tests.stack",
    "tests.containers",
    "tests.chroma",
    "tests.http.chromium",
    "tests.monitoring",
    "tests.serving",
    "tests.upstreams",
    "tests.openwebui",
    "tests.smoke.image",
    "tests.units",
]
