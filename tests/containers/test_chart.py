"""The chart renders to valid, locked-down objects, and refuses values that are not valid."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from control_plane.cli.server import GRACE
from control_plane.settings import Issuer, Settings
from tests.containers.conftest import CHART, KUBERNETES, Objects, Render

Values = dict[str, Any]

EXTERNAL_DATABASE: Values = {
    "image": {"repository": "registry.example.com/control-plane", "tag": "1.2.3"},
    "secret": {"name": "managed-postgres", "keys": {"databaseUrl": "uri"}},
    "jobs": {"init": {"args": ["--no-cluster"]}},
}
EVERYTHING: Values = {
    "fullnameOverride": "tenants",
    "image": {"digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "issuers": [{"issuer": "https://id.example.com/", "jwks_url": "https://id.example.com/jwks.json"}],
    "config": {"CP_LOG_LEVEL": "debug", "CP_CLUSTER_CONNECTIONS": 20},
    "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
    "api": {
        "replicas": 3,
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "data"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
    },
    "worker": {"replicas": 2, "podAnnotations": {"a": "b"}, "podLabels": {"team": "data"}},
    "jobs": {"migrateAll": {"args": ["--to", "3"]}, "nodeSelector": {"kubernetes.io/arch": "amd64"}},
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"a": "b"},
        "hosts": ["cp.example.com"],
        "tls": [{"hosts": ["cp.example.com"], "secretName": "cp-tls"}],
    },
    "serviceAccount": {"annotations": {"a": "b"}},
    "podDisruptionBudget": {"minAvailable": "50%"},
    "networkPolicy": {
        "enabled": True,
        "from": [{"namespaceSelector": {}}],
        "databasePorts": [5432, 6432],
        "issuerPorts": [443, 8443],
        "databases": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
    },
}
VARIANTS: dict[str, Values] = {"defaults": {}, "external database": EXTERNAL_DATABASE, "everything": EVERYTHING}


@pytest.fixture(scope="session", params=list(VARIANTS.values()), ids=list(VARIANTS))
def objects(render: Render, request: pytest.FixtureRequest) -> Objects:
    return render(request.param)


def named(objects: Objects, kind: str, component: str) -> dict[str, Any]:
    found = [
        each
        for each in objects
        if each["kind"] == kind and each["metadata"]["labels"]["app.kubernetes.io/component"] == component
    ]
    assert len(found) == 1
    return found[0]


def pods(objects: Objects) -> Iterator[dict[str, Any]]:
    for each in objects:
        if each["kind"] in ("Deployment", "Job"):
            yield each["spec"]["template"]["spec"]


def environment(objects: Objects) -> Iterator[dict[str, Any]]:
    for pod in pods(objects):
        yield from pod["containers"][0]["env"]


def test_every_object_is_valid_kubernetes(objects: Objects) -> None:
    for each in objects:
        kubernetes_validate.validate(each, KUBERNETES.rsplit(".", 1)[0], strict=True)


def test_the_parts_that_are_off_by_default_appear_when_switched_on(render: Render) -> None:
    optional = {"Ingress", "NetworkPolicy"}
    assert not optional & {each["kind"] for each in render()}
    assert optional <= {each["kind"] for each in render(EVERYTHING)}


def test_pods_run_locked_down(objects: Objects) -> None:
    assert len(list(pods(objects))) == 4
    for pod in pods(objects):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_secrets_come_by_reference_only(objects: Objects) -> None:
    assert "Secret" not in {each["kind"] for each in objects}
    secret = [
        each for each in environment(objects) if each["name"] in ("CP_DATABASE_URL", "CP_SECRET_KEY", "CP_SIGNING_KEY")
    ]
    assert len(secret) == 4 * 3
    for each in secret:
        assert "value" not in each
        assert each["valueFrom"]["secretKeyRef"]["name"]
    assert not re.search(r"postgres(ql)?://|password", json.dumps(objects))


def test_the_environment_holds_nothing_but_settings(objects: Objects) -> None:
    known = {f"CP_{name.upper()}" for name in Settings.model_fields} | {"SSL_CERT_FILE"}
    assert {each["name"] for each in environment(objects)} <= known


def test_issuers_arrive_as_the_settings_read_them(render: Render) -> None:
    (written,) = {each["value"] for each in environment(render(EVERYTHING)) if each["name"] == "CP_ISSUERS"}
    (issuer,) = [Issuer.model_validate(each) for each in json.loads(written)]
    assert issuer.jwks_url == "https://id.example.com/jwks.json"
    assert issuer.secret is None


def test_an_issuer_inside_the_cluster_may_be_reached_over_http(render: Render) -> None:
    issuer = {"issuer": "keycloak", "jwks_url": "http://keycloak.identity/certs", "jwks_internal": True}
    assert render({"issuers": [issuer]})


def test_issuer_values_are_fields_of_an_issuer() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]["issuers"]["items"]["properties"]) == set(Issuer.model_fields) - {"secret"}


def test_init_and_then_migrate_all_run_before_the_pods_change(render: Render) -> None:
    objects = render()
    init = named(objects, "Job", "init")["metadata"]["annotations"]
    migrate = named(objects, "Job", "migrate-all")["metadata"]["annotations"]
    assert init["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert migrate["helm.sh/hook"] == "pre-upgrade"
    assert int(init["helm.sh/hook-weight"]) < int(migrate["helm.sh/hook-weight"])


def test_hook_jobs_need_nothing_that_the_release_creates(objects: Objects) -> None:
    created = {
        each["metadata"]["name"] for each in objects if each["kind"] in ("ServiceAccount", "ConfigMap", "Secret")
    }
    for component in ("init", "migrate-all"):
        pod = named(objects, "Job", component)["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] not in created
        assert "configMapRef" not in json.dumps(pod)


def test_a_halted_run_is_not_tried_again(render: Render) -> None:
    (rule,) = named(render(), "Job", "migrate-all")["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [3])


def test_the_api_is_probed_where_it_answers(render: Render) -> None:
    (container,) = named(render(), "Deployment", "api")["spec"]["template"]["spec"]["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {"path": "/healthz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    assert container["ports"] == [{"name": "http", "containerPort": 8000, "protocol": "TCP"}]


def test_an_ended_pod_drains_and_has_the_time_that_it_takes(render: Render) -> None:
    pod = named(render({"api": {"drainSeconds": 12}}), "Deployment", "api")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"name": "CP_DRAIN_SECONDS", "value": "12"} in container["env"]
    assert "lifecycle" not in container  # the process waits itself, with its readiness gone
    assert pod["terminationGracePeriodSeconds"] >= 12 + GRACE + 10
    everywhere = environment(render())
    assert len([each for each in everywhere if each["name"] == "CP_DRAIN_SECONDS"]) == 1


def test_the_service_leads_to_the_api_only(objects: Objects) -> None:
    (service,) = [each for each in objects if each["kind"] == "Service"]
    selector = service["spec"]["selector"]

    def chosen(each: dict[str, Any]) -> bool:
        return bool(selector.items() <= each["spec"]["template"]["metadata"]["labels"].items())

    assert [
        each["metadata"]["labels"]["app.kubernetes.io/component"]
        for each in objects
        if "template" in each.get("spec", {}) and chosen(each)
    ] == ["api"]


def test_one_replica_gets_no_budget_that_would_block_a_drain(render: Render) -> None:
    assert "PodDisruptionBudget" in {each["kind"] for each in render()}
    assert "PodDisruptionBudget" not in {each["kind"] for each in render({"api": {"replicas": 1}})}


def test_a_digest_takes_the_place_of_the_tag(render: Render) -> None:
    images = {
        pod["containers"][0]["image"] for pod in pods(render({"image": {"tag": "1", "digest": "sha256:" + "a" * 64}}))
    }
    assert images == {"control-plane@sha256:" + "a" * 64}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replicas": 2}, "replicas"),
        ({"api": {"replicas": "two"}}, "/api/replicas"),
        ({"api": {"replica": 2}}, "replica"),
        ({"secret": {"databaseUrl": "postgresql://u:p@h/d"}}, "databaseUrl"),
        ({"config": {"CP_SECRET_KEY": "x" * 32}}, "CP_SECRET_KEY"),
        ({"config": {"PATH": "/opt"}}, "PATH"),
        ({"config": {"CP_DRAIN_SECONDS": 9}}, "CP_DRAIN_SECONDS"),
        ({"api": {"drainSeconds": 26}}, "api.terminationGracePeriodSeconds must be at least"),
        ({"issuers": [{"issuer": "i", "secret": "s", "jwks_url": "https://i/"}]}, "secret"),
        ({"issuers": [{"issuer": "i", "jwks_url": "http://i/"}]}, "jwks_url"),
        ({"issuers": [{"issuer": "i", "jwks_url": "http://i/", "jwks_internal": False}]}, "jwks_url"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"ingress": {"enabled": True}}, "/ingress/hosts"),
        ({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
        ({"securityContext": {"readOnlyRootFilesystem": False}}, "readOnlyRootFilesystem"),
        ({"service": {"port": 0}}, "/service/port"),
    ],
)
def test_bad_values_are_refused_by_name(
    template: Callable[..., subprocess.CompletedProcess[str]], values: Values, complaint: str
) -> None:
    result = template(values)
    assert result.returncode != 0
    assert complaint in result.stderr


def test_every_value_has_its_place_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
