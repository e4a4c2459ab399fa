"""The event log on NATS JetStream: ``JetStreamEventLog``.

What each module owns:

- ``event_log``: the public class, which hands each call to one of the following;
- ``connection``: the connection to the servers, its thread (``loop_thread``), retries, and what an error says;
- ``stream``: one core's stream on the servers, whose messages are batches (``message``);
- ``appending``: appends of one core; ``publishing`` has a window of publishes in flight, and ``acks`` their
  acknowledgements;
- ``reading``: a range of a core's numbers, and what a trim forgets;
- ``notices``: that something was stored, for those who wait for it;
- ``watermarks``: the key-value bucket; ``claims``: that of who follows;
- ``history``: whether a stream is still the one, with the same events, in which somebody stood at a position.

Not here: what any log does (``log/``), nor what a follower does with one (``recovery/``).
"""

from importlib import import_module as _import_module

try:
    _import_module("nats.js.kv")
except ImportError as _error:
    raise ImportError("JetStreamEventLog needs nats-py: pip install 'nodedb_ring[nats]'") from _error

from .event_log import JetStreamEventLog

__all__ = ["JetStreamEventLog"]
