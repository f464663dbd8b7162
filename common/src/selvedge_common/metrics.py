"""Counters under the names that Fabric gives them."""

from collections.abc import Iterable

from prometheus_client import Counter, Metric
from prometheus_client.samples import Sample


class FabricCounter(Counter):
    """A counter whose series has exactly the given name.

    prometheus_client adds `_total` to every counter's name, by which dashboards and alerts made
    for Fabric's peers and orderers would find nothing. Its text format does so for whatever is
    typed as counter, so the series goes out untyped; rate() and increase() work on it all the
    same.
    """

    def _get_metric(self) -> Metric:
        return Metric(self._name, self._documentation, "unknown", self._unit)

    def _child_samples(self) -> Iterable[Sample]:
        return (Sample("", {}, self._value.get(), None, None),)
