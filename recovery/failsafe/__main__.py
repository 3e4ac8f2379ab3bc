"""``python -m recovery.failsafe``: this host's guard, as the supervisor starts it."""

from __future__ import annotations

from recovery import logs
from recovery.config import Environment, current_policy
from recovery.failsafe.guard import run

if __name__ == "__main__":
    logs.configure()
    run(Environment.read(), current_policy())
