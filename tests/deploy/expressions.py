"""Every PromQL expression in `deploy/`: of the dashboards, their variables and the alerts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = DEPLOY / "grafana" / "dashboards"
RULES = DEPLOY / "prometheus" / "rules.yml"

# What Grafana puts in the place of its own variables, and of one of which all values are chosen.
_ALL = ".*"
_INTERVAL = "1m"
_LABEL_VALUES = re.compile(r"label_values\((?P<series>.+),\s*\w+\)")
_THRESHOLD = re.compile(r"(?P<value>.*\S)\s*(?:==|!=|<=|>=|<|>)\s*[0-9.]+", re.DOTALL)


class Expression(NamedTuple):
    """One expression, ready to be asked.

    Attributes:
        where: file, and panel, variable or alert, for a reader.
        expr: PromQL without variables; for an alert the value it compares, not the comparison,
            so that a healthy installation gives an answer.
    """

    where: str
    expr: str


def expressions(interval: str = _INTERVAL) -> Iterator[Expression]:
    """All expressions of the dashboards and the rules.

    Args:
        interval: the range that `$__rate_interval` stands for, at least four scrapes long, as "1m";
            the ranges of alerts are their own.
    """
    for file in sorted(DASHBOARDS.glob("*.json")):
        yield from _of_dashboard(file, interval)
    yield from of_alerts()


def of_alerts() -> Iterator[Expression]:
    """The values that the alerts compare with a threshold.

    Raises:
        ValueError: an alert is not of the form VALUE OPERATOR NUMBER.
    """
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            found = _THRESHOLD.fullmatch(rule["expr"].strip())
            if found is None:
                raise ValueError(f"{RULES.name}: {rule['alert']} must be a value and a threshold")
            yield Expression(f"{RULES.name}: {rule['alert']}", found["value"])


def _of_dashboard(file: Path, interval: str) -> Iterator[Expression]:
    dashboard: dict[str, Any] = json.loads(file.read_text())
    values = {"__rate_interval": interval}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            values[variable["name"]] = _ALL
            found = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            if found is None:
                raise ValueError(f"{file.name}: ${variable['name']} must be label_values(…, label)")
            yield Expression(f"{file.name}: ${variable['name']}", found["series"])
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            where = f"{file.name}: {panel['title']}, {target['legendFormat']}"
            yield Expression(where, _substituted(target["expr"], values, where))


def _substituted(expr: str, values: dict[str, str], where: str) -> str:
    def value(found: re.Match[str]) -> str:
        try:
            return values[found[1]]
        except KeyError:
            raise ValueError(f"{where}: there is no variable ${found[1]}") from None

    return re.sub(r"\$(\w+)", value, expr)
