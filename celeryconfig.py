"""Plain Celery settings of workers and producers. Each that is not Celery's default says why."""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue

from recovery import probing, producer, snapshots
from recovery.config import Environment, current_policy

_environment = Environment.read()
_policy = current_policy()

broker_url = _environment.celery_broker_url
result_backend = _environment.celery_result_backend

# JSON only: unpickling a message would run whatever its sender likes.
task_serializer = "json"
result_serializer = "json"
event_serializer = "json"
accept_content = ["json"]
result_accept_content = ["json"]

# A queue a component, so that a slow rollback never delays a fast reconnect; hosts with targets of
# their own get one more each.
_COMPONENTS = ("redis", "chromadb", "openwebui", "system")
_hosts = sorted(
    {
        f"{ref.component}.{host}"
        for ref in _policy.target_refs()
        if (host := _policy.target(ref).host) is not None
    }
)
# Looks never wait behind a remedy, nor a remedy behind looks: other queues, other workers.
_probe_queues = probing.queues(_policy)
task_queues = [
    Queue(name, Exchange(name, type="direct"), routing_key=name)
    for name in ("dispatch", *_COMPONENTS, "notify", "maintenance", *_hosts, *_probe_queues)
]
# What we send ourselves always names its queue; whatever does not is an event.
task_default_queue = "dispatch"
task_default_exchange = "dispatch"
task_default_routing_key = "dispatch"
# A worker started with -Q names may consume a queue that this policy does not list yet.
task_create_missing_queues = True
task_routes: dict[str, dict[str, str]] = {
    "recovery.recover": {"queue": "dispatch"},
    "recovery.follow_approval": {"queue": "dispatch"},
    "recovery.deliver_alerts": {"queue": "notify"},
    "recovery.reconcile": {"queue": "maintenance"},
    "recovery.follow_decisions": {"queue": "maintenance"},
    "recovery.close_refused_bursts": {"queue": "maintenance"},
    "recovery.seal_audit": {"queue": "maintenance"},
    "recovery.visit_hosts": {"queue": "maintenance"},
    **{f"recovery.{name}.*": {"queue": name} for name in _COMPONENTS},
}

# A task is done when it has run, not when it was taken: a killed pool process gives it back.
task_acks_late = True
task_reject_on_worker_lost = True
# One message a process: a repair must not wait in a busy worker while another one is idle.
worker_prefetch_multiplier = 1
# A broker that went away says nothing about the target: the remedy that runs goes on.
worker_cancel_long_running_tasks_on_connection_loss = False

# What a leak has made of a pool process goes with it, between two tasks, where the policy says so.
_recycle_above_mb = _policy.parameter("system", "memory_gc", "recycle_above_mb")
worker_max_memory_per_child = int(_recycle_above_mb * 1e6 / 1024) if _recycle_above_mb else None

# Results are for producers that ask; the audit trail is what lasts.
result_expires = 600
task_ignore_result = False
task_store_errors_even_if_ignored = False

# Strategies bring their own limits from the policy; this is for everything else.
task_soft_time_limit = 30
task_time_limit = 45

# Task events (worker_send_task_events) stay at Celery's default, off: each costs a publish in the
# way of every repair, whether or not somebody looks. Flower switches them on in running workers by
# itself; for `celery events` say `celery -A workers.app control enable_events`.

# A sender hears soon that the broker is away, refusing or silent; `recovery.trigger` shortens these
# a little more, to keep its promise of two seconds.
broker_connection_timeout = 1.0
task_publish_retry_policy = {
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "interval_max": 0.1,
}
broker_transport_options: dict[str, Any] = {
    "socket_connect_timeout": 0.8,
    "socket_timeout": 1.8,
    "socket_keepalive": True,
    # The lease and the reconcile task bring a lost recovery back, never this timeout; it only has
    # to be longer than any task and any retry's countdown.
    "visibility_timeout": 3600,
}
redis_socket_connect_timeout = 0.8
redis_socket_timeout = 1.8
redis_retry_on_timeout = False
# A worker never gives up on its broker.
broker_connection_retry = True
broker_connection_retry_on_startup = True
broker_connection_max_retries = None

# Our own handler and format, set up in workers.app.
worker_hijack_root_logger = False
worker_proc_alive_timeout = 10.0

imports = (
    "workers.dispatcher",
    "workers.redis",
    "workers.chromadb",
    "workers.openwebui",
    "workers.snapshots",
    "workers.system",
    "workers.notify",
    "workers.maintenance",
    "workers.liveness",
    "workers.probes",
    "workers.registration",
)

enable_utc = True
timezone = "UTC"

# No `expires` anywhere: see workers.schedule. Each tick does what is due by the control plane's
# clock, so that one that is late does no harm.
beat_schedule: dict[str, dict[str, Any]] = {
    "reconcile": {
        "task": "recovery.reconcile",
        "schedule": 2.0,
        "options": {"ignore_result": True},
    },
    "follow-decisions": {
        "task": "recovery.follow_decisions",
        "schedule": 5.0,
        "options": {"ignore_result": True},
    },
    "deliver-alerts": {
        "task": "recovery.deliver_alerts",
        "schedule": 5.0,
        "options": {"ignore_result": True},
    },
    "close-refused-bursts": {
        "task": "recovery.close_refused_bursts",
        "schedule": 30.0,
        "options": {"ignore_result": True},
    },
    "visit-hosts": {
        "task": "recovery.visit_hosts",
        "schedule": 300.0,
        "options": {"ignore_result": True},
    },
    "follow-routes": {
        "task": "recovery.openwebui.follow_routes",
        "schedule": 10.0,
        "options": {"ignore_result": True},
    },
    # A day is sealed within the hour after its end, and a seal that failed is tried again.
    "seal-audit": {
        "task": "recovery.seal_audit",
        "schedule": 3600.0,
        "options": {"ignore_result": True},
    },
}
# Where the directory is, each looks by itself whether a snapshot is due; what a killed one left is
# brought to an end at the same time.
for _ref in snapshots.refs(_policy):
    beat_schedule[f"snapshot-{_ref}"] = {
        "task": producer.SNAPSHOT_IF_DUE,
        "schedule": 60.0,
        "kwargs": {"target": str(_ref)},
        "options": {
            "queue": _policy.queue(_ref),
            "ignore_result": True,
            **producer.snapshot_limits(_policy, _ref),
        },
    }
# A round that is late finds its looks given away already.
beat_schedule |= {
    queue: {
        "task": "recovery.probe",
        "schedule": probing.round_seconds(_policy, queue),
        "kwargs": {"queue": queue},
        "options": {"queue": queue, "ignore_result": True},
    }
    for queue in _probe_queues
}
# The schedule is short and starts anew with beat: nothing of it needs to survive on disk.
beat_scheduler = "workers.schedule:PatientScheduler"
