"""What every task of one process shares: the policy, the control plane, and who we are."""

from __future__ import annotations

import os
from functools import cache

from recovery.config import Environment, Policy, current_policy
from recovery.controlplane import ControlPlane


@cache
def environment() -> Environment:
    return Environment.read()


@cache
def control() -> ControlPlane:
    return ControlPlane.connect(environment())


def policy() -> Policy:
    return current_policy()


def holder() -> str:
    """Host and process id: who repairs, in leases and in the audit."""
    return f"{environment().host}:{os.getpid()}"
