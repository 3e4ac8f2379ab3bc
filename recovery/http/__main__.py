"""The process of ``recovery serve``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from recovery import logs
from recovery.config import Environment, current_policy
from recovery.controlplane import ControlPlane
from recovery.errors import RecoveryError
from recovery.http.context import Context
from recovery.http.serving import serve
from recovery.http.settings import settle


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m recovery.http")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--loglevel", default="info")
    given = parser.parse_args()
    logs.configure(given.loglevel.upper())
    # What uvicorn says of its own life adds nothing to what the supervisor and we say.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    try:
        environment, policy = Environment.read(), current_policy()
        settings = settle(
            policy, environment, host=given.host, port=given.port, token_file=given.token_file
        )
        serve(Context(ControlPlane.connect(environment), policy, environment, settings))
    except RecoveryError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
