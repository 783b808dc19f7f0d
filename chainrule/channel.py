"""The gRPC channel to a coordinator: its limits, and how fast it notices that the other side is gone."""

import grpc

MAX_MESSAGE_BYTES = 4 * 1024 * 1024


def open_channel(address: str) -> grpc.Channel:
    """An unencrypted channel to ``host:port``. Connects when first used, and again whenever the connection breaks."""
    return grpc.insecure_channel(
        address,
        options=[
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # Only while a call is open: a watched job may be silent for long, and so may a machine that was unplugged.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 0),
            # gRPC's own wait between attempts grows to two minutes; a coordinator restarts in seconds.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            # http_proxy is often set without no_proxy, and a proxy cannot reach this machine's own addresses.
            ("grpc.enable_http_proxy", 0 if _is_local(address) else 1),
        ],
    )


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0]
    return host in {"localhost", "[::1]"} or host.startswith("127.") or address.startswith("unix:")
