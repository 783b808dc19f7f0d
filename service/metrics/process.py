"""What is known of every Python process, under the names that prometheus_client gives it."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector


class ProcessMetrics:
    """Of the coordinator's own process: trainers and workers have theirs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def text(self) -> str:
        """Its part of a scrape."""
        return generate_latest(self.registry).decode()
