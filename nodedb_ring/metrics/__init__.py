"""The counters of rings, followers and captures for Prometheus: ``RingCollector``.

Nothing is counted here. A scrape reads the counters in the rings' headers, in the followers and in the captures. So
metrics cost emits and drains nothing, and the counters of a shared bus include what was counted before this process
opened it.

``families.py`` says what is exported, ``collector.py`` of what. It needs the extra ``[metrics]``: prometheus-client.
"""

try:
    import prometheus_client as _prometheus_client
except ImportError as _error:
    raise ImportError("nodedb_ring.metrics needs prometheus-client: pip install 'nodedb_ring[metrics]'") from _error

from .collector import RingCollector

__all__ = ["RingCollector"]

del _prometheus_client
