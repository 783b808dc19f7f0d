"""Whether there are to be traces, as OpenTelemetry's environment variables have it."""

from collections.abc import Mapping

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Where to send traces. OpenTelemetry has a default for it; here there are none unless one is set."""

_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def wanted(environment: Mapping[str, str]) -> str:
    """The variable that asks for traces; "" if none does, or another says that there are to be none.

    Raises ValueError, for whoever starts the service, if they are to be sent in a way that it doesn't know.
    """
    asks = next((name for name in ENDPOINTS if environment.get(name)), "")
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not asks or disabled or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return ""
    protocol = next((name for name in _PROTOCOLS if environment.get(name)), "")
    if protocol and environment[protocol] != "grpc":
        raise ValueError(
            f"{protocol} is {environment[protocol]!r}; traces are sent by gRPC alone: set it to 'grpc', and {asks} to "
            "where the collector listens for that, which is port 4317 as a rule"
        )
    return asks
