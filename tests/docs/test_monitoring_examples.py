"""The queries and rules of the monitoring guide speak of metrics and labels that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from docs_pages import DOCS, Block, blocks, pages

from hakuriver.states import TaskState
from hakuriver_host.services.metrics import METRICS

PAGE = DOCS / "integration-guides/external-monitoring.md"
LABELS = {metric.name: set(metric.labels) for metric in METRICS}


def yamls(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "yaml"]


@pytest.mark.parametrize("block", [block for page in pages() for block in yamls(page)], ids=str)
def test_what_is_shown_as_yaml_is_yaml(block: Block) -> None:
    assert isinstance(yaml.safe_load(block.text), dict | list)


def test_labels_that_are_asked_for_exist() -> None:
    selected = re.findall(r"(hakuriver_\w+)\{(\w+)=\"(\w+)\"", PAGE.read_text("utf-8"))
    assert selected
    for name, label, value in selected:
        assert label in LABELS[name]
        assert label != "state" or value in set(TaskState)


def test_every_alert_has_a_name_and_an_expression() -> None:
    (group,) = [yaml.safe_load(block.text)["groups"][0] for block in yamls(PAGE) if "groups" in block.text]
    for rule in group["rules"]:
        assert rule["alert"].startswith("HakuRiver")
        assert any(name in rule["expr"] for name in (*LABELS, "up{"))
