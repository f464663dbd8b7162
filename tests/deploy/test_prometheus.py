"""The Prometheus configuration, its alerts and the dashboard, against the metrics there are."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY
from tests.deploy import expressions
from tests.e2e.tools import require

REPOSITORY = Path(__file__).parents[2]
PROMETHEUS = REPOSITORY / "deploy" / "prometheus"

# What the client library appends to the names of metrics.
_SUFFIXES = {
    "counter": ["_total"],
    "gauge": [""],
    "histogram": ["_bucket", "_sum", "_count"],
    "info": ["_info"],
    "unknown": [""],  # counters under Fabric's names, see selvedge_common.metrics
}
# Of Prometheus' own making, and the labels that its configuration gives to every series.
_OF_PROMETHEUS = {"up": frozenset[str]()}
_OF_TARGETS = frozenset({"job", "instance", "service", "le"})
_KEYWORDS = frozenset({"by", "without", "on", "ignoring", "or", "and", "unless", "bool"})
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')


def metrics() -> dict[str, frozenset[str]]:
    """The series that the services expose, and their labels."""
    sources = [*REPOSITORY.glob("services/*/src"), REPOSITORY / "common" / "src"]
    for source in sources:
        for module in source.rglob("*metrics.py"):
            importlib.import_module(".".join(module.relative_to(source).with_suffix("").parts))
    found = dict(_OF_PROMETHEUS)
    for collector in REGISTRY._collector_to_names:
        for metric in collector.collect():
            # The collector's own, or those of each metric where it has several.
            labels = getattr(collector, "_labelnames", getattr(metric, "_labelnames", ()))
            found |= {metric.name + suffix: frozenset(labels) for suffix in _SUFFIXES[metric.type]}
    return found


@pytest.fixture(scope="module")
def known() -> dict[str, frozenset[str]]:
    return metrics()


def names_in(expr: str) -> Iterator[str]:
    """The names of series in an expression."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expr)
    for name in re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", _GROUPING.sub(" ", bare)):
        if name not in _KEYWORDS:
            yield name


def labels_in(expr: str) -> set[str]:
    """The names of labels that an expression selects or groups by."""
    grouped = {label.strip() for found in _GROUPING.findall(expr) for label in found.split(",")}
    return grouped | set(_MATCHER.findall(expr))


@pytest.mark.parametrize(("where", "expr"), list(expressions.expressions()))
def test_expressions_name_series_and_labels_that_the_services_expose(
    where: str, expr: str, known: dict[str, frozenset[str]]
) -> None:
    names = list(names_in(expr))
    assert names, f"{where} names no series: {expr}"
    unknown = [name for name in names if name not in known]
    assert not unknown, f"{where}: no service exposes {unknown}"
    labels = _OF_TARGETS.union(*(known[name] for name in names))
    assert labels_in(expr) <= labels, f"{where}: {names} have no labels {labels_in(expr) - labels}"


def test_names_and_labels_are_found_in_an_expression() -> None:
    expr = 'sum by (le, type) (rate(a_bucket{channel=~"x", ok!="y z"}[1m])) / on (b) c or vector(0)'
    assert list(names_in(expr)) == ["a_bucket", "c"]
    assert labels_in(expr) == {"le", "type", "channel", "ok", "b"}


def test_no_series_has_a_label_that_prometheus_gives(known: dict[str, frozenset[str]]) -> None:
    """Prometheus would rename it, as in `exported_service`."""
    given = _OF_TARGETS - {"le"}
    assert {name: labels & given for name, labels in known.items() if labels & given} == {}


def promtool(*arguments: str) -> str:
    """Runs promtool and gives what it printed; a finding of its own fails the test."""
    command = [str(require("promtool")), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_its_configuration_and_rules(tmp_path: Path) -> None:
    shutil.copytree(PROMETHEUS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "roots").mkdir(exist_ok=True)
    (tmp_path / "roots" / "ca.crt").touch()
    alerts = len(list(expressions.of_alerts()))
    told = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert f"{alerts} rules found" in told


def test_alerts_fire_when_there_is_trouble_and_only_then(tmp_path: Path) -> None:
    shutil.copy(expressions.RULES, tmp_path)
    scenarios = Path(shutil.copy(Path(__file__).with_name("alerts.yml"), tmp_path))
    promtool("test", "rules", str(scenarios))
    tested = yaml.safe_load(scenarios.read_text())["tests"]
    fired = {
        test["alertname"]
        for scenario in tested
        for test in scenario["alert_rule_test"]
        if test.get("exp_alerts")
    }
    alerts = {alert.where.rpartition(" ")[2] for alert in expressions.of_alerts()}
    assert fired == alerts


def test_prometheus_scrapes_the_operations_port_of_every_service() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    scraped = {
        target
        for job in config["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    expected = set()
    for settings in REPOSITORY.glob("services/*/src/*/core.yaml"):
        listens = yaml.safe_load(settings.read_text())["operations"]["listenAddress"]
        expected.add(f"{settings.parents[2].name}:{listens.rpartition(':')[2]}")
    assert scraped == expected


@pytest.mark.parametrize("file", list(expressions.DASHBOARDS.glob("*.json")), ids=lambda f: f.name)
def test_dashboards_take_their_data_from_the_chosen_source(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert panels
    for panel in panels:
        sources = {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])}
        assert sources == {"$datasource"}, panel["title"]
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(identifiers) == len(set(identifiers))
