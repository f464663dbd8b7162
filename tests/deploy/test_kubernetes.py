"""The Kubernetes manifests: they render, they are valid, and they ask for no privilege."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from tests.e2e.tools import require

import certificate_authority.config
import chaincode_support.config
import event_hub.config
from selvedge_common import config

REPOSITORY = Path(__file__).parents[2]
BASE = REPOSITORY / "deploy" / "k8s"
CONFIGURATIONS: dict[str, type] = {
    "ca": certificate_authority.config.Config,
    "chaincode-support": chaincode_support.config.Config,
    "event-hub": event_hub.config.Config,
}
SERVICES = tuple(CONFIGURATIONS)
# The oldest release that the validator knows, and the newest.
VERSIONS = ("1.25", kubernetes_validate.latest_version())

Manifest = dict[str, Any]


def kustomize(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k FOLDER` would send."""
    made = subprocess.run(
        [str(require("kubectl")), "kustomize", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return list(yaml.safe_load_all(made.stdout))


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    return kustomize(BASE)


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """The manifests of one kind by their names."""
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    return {manifest["metadata"]["name"]: manifest for manifest in found}


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The specs of the services' pods by the services' names."""
    sets = of_kind(manifests, "StatefulSet")
    return {name: manifest["spec"]["template"]["spec"] for name, manifest in sets.items()}


def privileges(pod: Manifest) -> Iterator[str]:
    """What a pod may do beyond the restricted profile of the Pod Security Standards.

    Stricter than that profile: the root is read-only, and there is no token of the cluster.
    """
    outer = pod.get("securityContext", {})
    if not outer.get("runAsNonRoot") or outer.get("runAsUser") != 10001:
        yield "pod: runs as another user than 10001"
    if outer.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "pod: has no seccomp profile"
    if pod.get("automountServiceAccountToken", True):
        yield "pod: gets a token of the cluster"
    yield from (f"pod: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key))
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    yield from (f"volume: {kind}" for kind in kinds - {"secret", "configMap", "emptyDir"})
    for container in pod["containers"] + pod.get("initContainers", []):
        inner, name = container.get("securityContext", {}), container["name"]
        if inner.get("allowPrivilegeEscalation", True):
            yield f"{name}: may gain privileges"
        if not inner.get("readOnlyRootFilesystem"):
            yield f"{name}: may write to its root"
        if inner.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: keeps capabilities"
        if inner.get("privileged"):
            yield f"{name}: is privileged"
        overrides = inner.keys() & {"runAsUser", "runAsNonRoot", "seccompProfile"}
        yield from (f"{name}: overrides {key}" for key in sorted(overrides))
        if any("hostPort" in port for port in container["ports"]):
            yield f"{name}: takes a port of the host"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(manifests: list[Manifest], version: str) -> None:
    assert set(pods(manifests)) == set(SERVICES)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_namespace_takes_restricted_pods_only(manifests: list[Manifest]) -> None:
    (namespace,) = of_kind(manifests, "Namespace").values()
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [manifest for manifest in manifests if manifest["kind"] != "Namespace"]
    name = namespace["metadata"]["name"]
    assert {manifest["metadata"]["namespace"] for manifest in others} == {name}


@pytest.mark.parametrize("service", SERVICES)
def test_pods_are_restricted(manifests: list[Manifest], service: str) -> None:
    assert list(privileges(pods(manifests)[service])) == []


LOOSENED: dict[str, Callable[[Manifest], object]] = {
    "runs as another user": lambda pod: pod["securityContext"].update(runAsUser=0),
    "no seccomp profile": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "token of the cluster": lambda pod: pod.pop("automountServiceAccountToken"),
    "hostNetwork": lambda pod: pod.update(hostNetwork=True),
    "volume: hostPath": lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "may gain": lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "may write": lambda pod: pod["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"),
    "keeps capab": lambda pod: pod["containers"][0]["securityContext"].pop("capabilities"),
    "is privileged": lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
    "overrides runAsUser": lambda pod: pod["containers"][0]["securityContext"].update(runAsUser=0),
    "port of the host": lambda pod: pod["containers"][0]["ports"][0].update(hostPort=1),
}


@pytest.mark.parametrize("privilege", LOOSENED)
def test_a_privilege_would_be_noticed(manifests: list[Manifest], privilege: str) -> None:
    pod = copy.deepcopy(pods(manifests)["ca"])
    LOOSENED[privilege](pod)
    (noticed,) = privileges(pod)
    assert privilege in noticed


@pytest.mark.parametrize("service", SERVICES)
def test_probes_ask_the_operations_port_by_https(manifests: list[Manifest], service: str) -> None:
    (container,) = pods(manifests)[service]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listens = settings(service).operations.listen_address
    assert ports["operations"] == int(listens.rpartition(":")[2])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"


@pytest.mark.parametrize("service", SERVICES)
def test_every_listener_is_reached_through_the_service(
    manifests: list[Manifest], service: str
) -> None:
    (container,) = pods(manifests)[service]["containers"]
    listeners = {port["name"]: port["containerPort"] for port in container["ports"]}
    spec = of_kind(manifests, "Service")[service]["spec"]
    assert {port["targetPort"]: port["port"] for port in spec["ports"]} == listeners
    assert set(listeners.values()) == listening_ports(packaged(service))
    template = of_kind(manifests, "StatefulSet")[service]["spec"]["template"]
    assert spec["selector"].items() <= template["metadata"]["labels"].items()


@pytest.mark.parametrize("service", SERVICES)
def test_mounts_name_volumes_and_settings_that_are_there(
    manifests: list[Manifest], service: str
) -> None:
    pod = pods(manifests)[service]
    claims = of_kind(manifests, "StatefulSet")[service]["spec"]["volumeClaimTemplates"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in claims}
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    maps = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    assert set(maps) <= set(of_kind(manifests, "ConfigMap"))


@pytest.mark.parametrize("service", SERVICES)
def test_settings_are_accepted_by_the_service(service: str) -> None:
    assert settings(service) is not None


def test_init_makes_the_secrets_that_the_pods_mount(
    manifests: list[Manifest], tmp_path: Path
) -> None:
    folder = tmp_path / "enrolment"
    folder.mkdir()
    shutil.copy(BASE / "enrolment" / "kustomization.yaml", folder)
    # As deploy/k8s/README.md has it.
    settings_file = str(BASE / "settings" / "ca.yaml")
    subprocess.run(
        [sys.executable, "-m", "certificate_authority", "init", "--config", settings_file],
        check=True,
        capture_output=True,
        env={
            **os.environ,
            "CORE_CA_FILESYSTEMPATH": str(folder / "ca"),
            "CORE_ENROLMENT_FOLDER": str(folder),
        },
    )
    secrets = kustomize(folder)
    for secret in secrets:
        for version in VERSIONS:
            kubernetes_validate.validate(secret, version, strict=True)
    volumes = [volume for pod in pods(manifests).values() for volume in pod["volumes"]]
    mounted = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
    assert set(of_kind(secrets, "Secret")) == mounted
    (namespace,) = of_kind(manifests, "Namespace")
    assert {secret["metadata"]["namespace"] for secret in secrets} == {namespace}


def packaged(service: str) -> Traversable:
    """A service's file of defaults."""
    return files(CONFIGURATIONS[service].__module__.partition(".")[0]) / "core.yaml"


def settings(service: str) -> Any:
    """A service's configuration in the cluster."""
    overlay = BASE / "settings" / f"{service}.yaml"
    return config.load(CONFIGURATIONS[service], packaged(service), overlay, environ={})


def listening_ports(defaults: Traversable) -> set[int]:
    """The ports of all addresses that a file of defaults listens on."""

    def texts(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for item in value.values():
                yield from texts(item)
        elif isinstance(value, str):
            yield value

    wild = [text for text in texts(yaml.safe_load(defaults.read_text())) if "0.0.0.0:" in text]
    return {int(address.rpartition(":")[2]) for address in wild}
