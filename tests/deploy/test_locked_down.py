"""What containers may do, and who can talk to them: a scan of those that run."""

import json
import socket
import sys
from pathlib import Path

import pytest

from tests.deploy.compose import ROOT, Deployment, run

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]

PUBLISHED = {"50051/tcp", "8080/tcp"}
SECRETS = ("api_token", "api_tokens", "ray_token", "metrics_token", "grafana_password", "server.key")

CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 1).close()
        print(address)
    except OSError:
        pass
"""
"""Prints at which of some addresses somebody answers."""

GET = """
import ssl, sys, urllib.error, urllib.request
trusted = ssl.create_default_context(cafile="/run/secrets/ca")
try:
    print(urllib.request.urlopen(sys.argv[1], context=trusted, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
"""Prints the status of a page that is asked for without a token."""


def test_containers_may_do_nothing_they_need_not(deployment: Deployment) -> None:
    secrets = [(ROOT / "deploy/secrets" / name).read_text().strip() for name in SECRETS]
    containers = deployment.containers()
    assert len(containers) == 5
    for container in containers:
        found = deployment.inspect(container)
        assert found["Config"]["User"].split(":")[0] not in ("", "root", "0")
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert not host["Privileged"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
        assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 5}
        told = json.dumps(found["Config"])  # its environment, its command and its labels
        assert not any(secret in told for secret in secrets)
        status = Path(f"/proc/{found['State']['Pid']}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "\nUid:\t0" not in status


def test_no_secret_is_in_the_image(image: str) -> None:
    secrets = [(ROOT / "deploy/secrets" / name).read_text().strip() for name in SECRETS]
    told = run("docker", "inspect", image) + run("docker", "history", "--no-trunc", image)
    assert not any(secret in told for secret in secrets)
    assert "secrets" not in run("docker", "run", "--rm", "--entrypoint", "ls", image, "/", "/run", "/home/chainrule")


def test_only_what_is_meant_to_be_is_published_and_on_loopback(deployment: Deployment) -> None:
    published = {}
    for container in deployment.containers():
        for port, bound in deployment.inspect(container)["NetworkSettings"]["Ports"].items():
            published.update({port: {at["HostIp"] for at in bound}} if bound else {})
    assert published == {port: {"127.0.0.1"} for port in PUBLISHED}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent: the kernel only chooses a route
        here = probe.getsockname()[0]
    for port in (deployment.port, deployment.web_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((here, port), 2).close()


def test_from_another_network_nothing_answers(deployment: Deployment, image: str) -> None:
    addresses = []
    for service, ports in (("coordinator", (50051, 8080, 9464, 6379)), ("prometheus", (9090,))):
        networks = deployment.inspect(deployment.containers(service)[0])["NetworkSettings"]["Networks"]
        addresses += [f"{network['IPAddress']}:{port}" for network in networks.values() for port in ports]
    inside = deployment.compose("exec", "-T", "worker", "python", "-c", CONNECT, *addresses).split()
    assert {address.rpartition(":")[2] for address in inside} == {"50051", "8080", "9464", "6379", "9090"}
    options = ("--rm", "--network", "bridge", "--entrypoint", "python")
    assert run("docker", "run", *options, image, "-c", CONNECT, *addresses) == ""


@pytest.mark.usefixtures("client")
def test_without_the_token_nothing_but_health_answers(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAINRULE_TOKEN_FILE")
    command = (sys.executable, "-m", "chainrule")
    assert "is ready" in run(*command, "health")
    for words in (("jobs", "list"), ("datasets", "list"), ("models", "list")):
        with pytest.raises(AssertionError, match="token"):
            run(*command, *words)
    for page in ("8080/", "8080/api/jobs", "9464/metrics"):
        told = deployment.compose("exec", "-T", "coordinator", "python", "-c", GET, f"https://localhost:{page}")
        assert told.strip() == "401"


def test_a_stranger_does_not_join_the_cluster(deployment: Deployment, image: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of somebody else")
    (tmp_path / "token").chmod(0o444)
    network = next(
        name
        for name in deployment.inspect(deployment.containers("coordinator")[0])["NetworkSettings"]["Networks"]
        if name.endswith("inside")
    )
    options = ("--rm", "--network", network, "--shm-size=1g", "-v", f"{tmp_path}/token:/token:ro")
    environment = ("-e", "RAY_AUTH_MODE=token", "-e", "RAY_AUTH_TOKEN_PATH=/token")
    said = run("docker", "run", *options, *environment, image, "worker", "head:6379", check=False)
    assert "doesn't take this machine's token" in said.splitlines()[-1]
