"""The metrics as Prometheus reads them, from the same families as ``recovery metrics``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from recovery import series
from recovery.errors import ControlPlaneUnavailable, SetupError

if TYPE_CHECKING:
    from recovery.http.context import Context
    from recovery.measurement import Measurement


class FamiliesCollector(Collector):
    """Hands Prometheus' own library what was measured; it counts nothing itself."""

    def __init__(self, families: Iterable[series.Family]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterator[Metric]:
        return map(_metric, self._families)


def expose(context: Context, accept: str = "") -> tuple[bytes, str]:
    """The text and its content type, as the scraper wants it.

    A control Redis that is away is a metric, so that an alert can tell it from a dead server.
    """
    encode, content_type = choose_encoder(accept)
    try:
        now = context.measured()
    except ControlPlaneUnavailable:
        return encode(_registry(series.unreachable())), content_type
    text = context.once(now, content_type, lambda: _encoded(context, now, encode))
    return text, content_type


def write_textfile(context: Context, path: Path) -> None:
    """For node_exporter's textfile collector: wholly old or wholly new.

    Raises ``ControlPlaneUnavailable`` and ``SetupError``.
    """
    text = generate_latest(_registry(series.families(context.measured(), context.policy)))
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}") from error


def _encoded(
    context: Context, now: Measurement, encode: Callable[[CollectorRegistry], bytes]
) -> bytes:
    return encode(_registry(series.families(now, context.policy)))


def _registry(families: Iterable[series.Family]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FamiliesCollector(families))
    return registry


def _metric(family: series.Family) -> Metric:
    if family.kind == "histogram":
        spread = HistogramMetricFamily(family.name, family.text, labels=family.labels)
        for labels, found in family.histograms.items():
            buckets = [(_bound(bound), count) for bound, count in found.buckets]
            spread.add_metric(labels, buckets, found.total)
        return spread
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    plain = kind(family.name, family.text, labels=family.labels)
    for labels, value in family.values.items():
        plain.add_metric(labels, value)
    return plain


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else str(value)
