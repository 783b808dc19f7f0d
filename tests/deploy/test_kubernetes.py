"""deploy/kubernetes: what Kubernetes would take, what fits together, and what pods may do. No cluster is needed."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic_settings import CliApp
from ray.scripts.scripts import start as ray_start

from service.settings import Settings
from tests.deploy.compose import ROOT

FOLDER = ROOT / "deploy/kubernetes"
VERSIONS = ("1.30", "1.33")
SECRETS = {"api_tokens", "ray_token", "server.pem", "server.key", "ca.pem", "metrics_token"}
"""What deploy/secrets.sh makes, and the page of the deployment puts into the cluster."""

KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
DOCUMENTS = [
    document for name in KUSTOMIZATION["resources"] for document in yaml.safe_load_all((FOLDER / name).read_text())
]
CUSTOM = yaml.safe_load((ROOT / "tests/deploy/custom_resources.yaml").read_text())


def of_kind(kind: str) -> list[Any]:
    """All documents of a kind."""
    return [document for document in DOCUMENTS if document["kind"] == kind]


def title(document: Any) -> str:
    """What a document is called by people."""
    return f"{document['kind']}-{document['metadata']['name']}"


def ray_groups() -> list[Any]:
    """The groups of the Ray cluster, the head's first."""
    (cluster,) = of_kind("RayCluster")
    return [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]


def pods() -> list[Any]:
    """The template of every pod."""
    (coordinator,) = of_kind("Deployment")
    return [coordinator["spec"]["template"], *(group["template"] for group in ray_groups())]


def selected(selector: Any) -> list[Any]:
    """The pods that a label selector takes."""
    wanted = selector.get("matchLabels", {}).items()
    return [pod for pod in pods() if wanted <= pod["metadata"]["labels"].items()]


def ports(pod: Any) -> set[str]:
    """The names of a pod's ports."""
    return {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}


def found(value: Any, *keys: str) -> Iterator[Any]:
    """Whatever is under one of some keys, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in keys:
                yield inner
            yield from found(inner, *keys)
    if isinstance(value, list):
        for inner in value:
            yield from found(inner, *keys)


def test_every_file_is_used() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*KUSTOMIZATION["resources"], "kustomization.yaml"}


@pytest.mark.parametrize("kubernetes", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=title)
def test_documents_are_what_kubernetes_takes(document: Any, kubernetes: str) -> None:
    if document["kind"] in CUSTOM:
        jsonschema.validate(document["spec"], CUSTOM[document["kind"]])
    else:
        kubernetes_validate.validate(document, kubernetes, strict=True)


@pytest.mark.parametrize("kubernetes", VERSIONS)
@pytest.mark.parametrize("pod", pods(), ids=lambda pod: str(pod["spec"]["containers"][0]["name"]))
def test_pods_are_what_kubernetes_takes(pod: Any, kubernetes: str) -> None:
    as_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"], "spec": pod["spec"]}
    kubernetes_validate.validate(as_pod, kubernetes, strict=True)


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: str(pod["spec"]["containers"][0]["name"]))
def test_pods_may_do_nothing_they_need_not(pod: Any) -> None:
    security = pod["spec"]["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] == security["fsGroup"] == 10001  # as in the image
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]
    assert {"readinessProbe", "livenessProbe"} <= container.keys()
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/tmp", "/home/chainrule", "/run/secrets/chainrule"} <= mounted  # noqa: S108


def test_secrets_are_named_and_not_told() -> None:
    assert not of_kind("Secret")
    keys = {item["key"] for document in DOCUMENTS for items in found(document, "items") for item in items}
    keys |= {of["key"] for document in DOCUMENTS for of in found(document, "credentials", "secret") if "key" in of}
    assert keys == SECRETS
    made = (ROOT / "deploy/secrets.sh").read_text()
    page = (ROOT / "docs/deployment.md").read_text()
    assert all(key in made and f"--from-file=deploy/secrets/{key}" in page for key in SECRETS)


def test_selectors_and_ports_fit_pods() -> None:
    (monitor,), (service,), (coordinator,) = of_kind("PodMonitor"), of_kind("Service"), of_kind("Deployment")
    (pod,) = selected(monitor["spec"]["selector"])
    assert pod is coordinator["spec"]["template"]
    assert selected(coordinator["spec"]["selector"]) == [pod]
    assert selected({"matchLabels": service["spec"]["selector"]}) == [pod]
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports(pod)
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports(pod)
    for policy in of_kind("NetworkPolicy"):
        to = selected(policy["spec"]["podSelector"])
        assert to
        for rule in policy["spec"].get("ingress", ()):
            named = {port["port"] for port in rule.get("ports", ())}
            assert all(named <= ports(pod) for pod in to)


def test_nobody_reaches_ray_from_elsewhere() -> None:
    heads = {"app.kubernetes.io/component": "ray-head"}
    ray_pods = [pod for pod in pods() if pod["metadata"]["labels"]["app.kubernetes.io/component"] != "coordinator"]
    for policy in of_kind("NetworkPolicy"):
        for pod in selected(policy["spec"]["podSelector"]):
            if pod in ray_pods:
                for rule in policy["spec"].get("ingress", ()):
                    assert [set(peer) for peer in rule["from"]] == [{"podSelector"}]
    everyone = next(policy for policy in of_kind("NetworkPolicy") if policy["spec"]["podSelector"] == {})
    assert everyone["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert not any(service["spec"]["selector"].items() <= heads.items() for service in of_kind("Service"))


def test_the_commands_are_those_of_the_image() -> None:
    (coordinator,) = of_kind("Deployment")
    (container,) = coordinator["spec"]["template"]["spec"]["containers"]
    word, *options = container["args"]
    settings = CliApp.run(Settings, cli_args=options)
    assert word == "serve"
    (cluster,) = of_kind("RayCluster")
    assert settings.ray_address == f"{cluster['metadata']['name']}-head-svc:6379"
    assert cluster["spec"]["rayVersion"] == version("ray")
    allowed = {option for parameter in ray_start.params for option in parameter.opts}
    for group in ray_groups():
        assert {f"--{name}" for name in group["rayStartParams"]} <= allowed


def test_one_coordinator_at_a_time_has_the_data() -> None:
    (coordinator,), (claim,) = of_kind("Deployment"), of_kind("PersistentVolumeClaim")
    assert coordinator["spec"]["replicas"] == 1
    assert coordinator["spec"]["strategy"] == {"type": "Recreate"}
    volumes = {volume["name"]: volume for volume in coordinator["spec"]["template"]["spec"]["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
