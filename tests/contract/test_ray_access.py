"""A Ray cluster of our own lets nobody else in: it listens on the loopback interface, and wants a token."""

import ipaddress
import os
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray

from service.cluster.ray_cluster import RayCluster
from tests.contract.tasks import SECONDS

pytestmark = pytest.mark.system

LISTENS = "0A"


def listening(port: int) -> set[str]:
    """The addresses at which something on this machine listens at a port, as the kernel tells."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            host, _, number = local.partition(":")
            if state == LISTENS and int(number, 16) == port:
                words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
                address = ipaddress.ip_address(b"".join(words))
                mapped = getattr(address, "ipv4_mapped", None)
                found.add(str(mapped or address))
    return found


@pytest.fixture(scope="module")
def head(cluster: RayCluster) -> str:
    """Where the head of the cluster answers."""
    assert cluster.room().workers
    address: str = ray.get_runtime_context().gcs_address
    return address


def test_its_ports_are_on_loopback_alone(head: str) -> None:
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    ports = [int(head.rpartition(":")[2]), node["NodeManagerPort"], node["ObjectManagerPort"]]
    assert [listening(port) for port in ports] == [{"127.0.0.1"}] * 3


def test_it_wants_the_token(head: str) -> None:
    with grpc.insecure_channel(head) as channel:
        call: Any = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        for sent in ((), (("authorization", "Bearer " + "0" * 64),)):
            with pytest.raises(grpc.RpcError) as error:
                call(b"", timeout=SECONDS, metadata=sent)
            refused: Any = error.value
            assert refused.code() == grpc.StatusCode.UNAUTHENTICATED
        own = (("authorization", f"Bearer {os.environ['RAY_AUTH_TOKEN']}"),)
        assert call(b"", timeout=SECONDS, metadata=own)
