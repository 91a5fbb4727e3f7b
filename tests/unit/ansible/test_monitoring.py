"""Rules and dashboard ask only for metrics that the Host has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hakuriver_host.services.metrics import METRICS

ROLE = Path(__file__).resolve().parents[3] / "ansible/roles/monitoring"
NAMES = {metric.name for metric in METRICS}
FILES = pytest.mark.parametrize("file", ["files/dashboard.json", "templates/rules.yml.j2"])


@FILES
def test_every_metric_that_is_asked_for_is_served(file: str) -> None:
    text = (ROLE / file).read_text("utf-8")
    asked = {name for name in re.findall(r"\bhakuriver_[a-z_]+\b(?=[{\s\[,)\\]|$)", text) if "{{" not in name}
    assert asked
    assert asked <= NAMES


@FILES
def test_every_label_that_is_asked_for_is_given(file: str) -> None:
    text = (ROLE / file).read_text("utf-8").replace('\\"', '"')
    asked = [
        (name, label)
        for name, selector in re.findall(r"\b(hakuriver_[a-z_]+)\{([^}]*)\}", text)
        for label in re.findall(r"(\w+)\s*[=!]", selector)
    ]
    assert asked
    # What is scraped has the label `cluster`, by the scrape configuration.
    labels = {metric.name: {*metric.labels, "cluster"} for metric in METRICS}
    assert [(name, label) for name, label in asked if label not in labels[name]] == []


def test_the_dashboard_shows_all_metrics_but_those_about_the_host_itself() -> None:
    text = (ROLE / "files/dashboard.json").read_text("utf-8")
    assert {name for name in NAMES if name not in text} == {
        "hakuriver_node_up",
        "hakuriver_start_time_seconds",
    }


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((ROLE / "files/dashboard.json").read_text("utf-8"))["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
