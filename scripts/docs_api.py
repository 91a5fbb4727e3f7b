"""The Host's endpoints and models, from the OpenAPI document that it serves; roles and errors."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from docs_tables import cell, row

import hakuriver.models.access
import hakuriver.models.batches
import hakuriver.models.errors
import hakuriver.models.nodes
import hakuriver.models.runner
import hakuriver.models.submission
import hakuriver.models.tasks
import hakuriver.models.usage
from hakuriver import errors
from hakuriver.roles import Role
from hakuriver_host.api.access import access_endpoints
from hakuriver_host.api.batches import batch_endpoints
from hakuriver_host.api.endpoint import Endpoint
from hakuriver_host.api.environments import environment_endpoints
from hakuriver_host.api.events import event_endpoints
from hakuriver_host.api.metrics import metric_endpoints
from hakuriver_host.api.nodes import node_endpoints
from hakuriver_host.api.openapi import document
from hakuriver_host.api.tasks import task_endpoints
from hakuriver_host.api.vps import vps_endpoints
from hakuriver_host.app import _openapi_endpoint
from hakuriver_host.services.access import PERMISSIONS, Permission
from hakuriver_host.services.metrics import METRICS


def host_document() -> dict[str, Any]:
    """The OpenAPI document as the Host serves it; no Host is needed to make it."""
    nothing: Any = None
    endpoints: list[Endpoint] = [
        *task_endpoints(nothing, nothing, nothing),
        *batch_endpoints(nothing),
        *node_endpoints(nothing, nothing),
        *environment_endpoints(SimpleNamespace(preparing=nothing, versions=nothing, syncing=nothing)),  # type: ignore[arg-type]
        *event_endpoints(nothing),
        *access_endpoints(nothing, nothing, nothing, nothing, nothing),
        *vps_endpoints(nothing),
        *metric_endpoints(nothing),
    ]
    return document([*endpoints, _openapi_endpoint(endpoints)])


def endpoints() -> str:
    lines: list[str] = []
    for path, operations in sorted(host_document()["paths"].items()):
        for method, operation in operations.items():
            lines += _endpoint(method.upper(), path, operation)
    return "\n".join(lines)


def _endpoint(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### {method} {path}"
    yield ""
    yield f"{operation['summary']}. {operation['description']}"
    yield ""
    if parameters := operation["parameters"]:
        yield "| parameter | in | type | meaning |"
        yield "|---|---|---|---|"
        for parameter in parameters:
            schema = parameter["schema"]
            cells = (
                f"`{parameter['name']}`",
                parameter["in"],
                _schema(schema),
                schema.get("description", ""),
            )
            yield row(cells)
        yield ""
    if body := operation.get("requestBody"):
        yield f"Body: {_content(body)}."
        yield ""
    yield "| status | answer |"
    yield "|---|---|"
    for status, response in operation["responses"].items():
        extra = [
            f"header `{name}`: {header['description']}"
            for name, header in response.get("headers", {}).items()
        ]
        said = _content(response) if "headers" in response else f"`ErrorBody`: {response['description']}"
        shown = [said, *(line for line in extra if "X-HakuRiver-Version" not in line)]
        yield f"| {status} | {cell('; '.join(shown))} |"
    yield ""


def _content(holder: dict[str, Any]) -> str:
    kinds = []
    for media_type, content in holder["content"].items():
        shape = _schema(content["schema"])
        kinds.append(shape if media_type == "application/json" else f"`{media_type}`")
    return " or ".join(kinds)


def models() -> str:
    """Every model that the Host's API speaks of, and those between Host and Runner."""
    schemas = host_document()["components"]["schemas"]
    meanings = _meanings()
    lines = []
    for name, schema in sorted(schemas.items()):
        lines += [f"### {name}", ""]
        if about := meanings.get((name, "")):
            lines += [about, ""]
        if "enum" in schema:
            lines += [", ".join(f"`{value}`" for value in schema["enum"]), ""]
            continue
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
        required = schema.get("required", [])
        for field, shape in schema.get("properties", {}).items():
            default = "" if field in required and "default" not in shape else _json(shape.get("default"))
            cells = (
                f"`{field}`",
                _schema(shape),
                default,
                meanings.get((name, field), shape.get("description", "")),
            )
            lines.append(row(cells))
        lines.append("")
    return "\n".join(lines)


def _schema(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_schema(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_schema(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map to {_schema(schema['additionalProperties'])}"
    if schema.get("pattern") == "^[0-9]{1,19}$":
        return "id (a string of digits)"
    if schema.get("format") == "date-time":
        return "time (RFC 3339)"
    bounds = [f"≥ {schema['minimum']}"] if "minimum" in schema else []
    bounds += [f"≤ {schema['maximum']}"] if "maximum" in schema else []
    return " ".join([str(schema.get("type", "any")), *bounds])


def _json(value: Any) -> str:
    plain = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return f"`{plain[value]}`"
    if isinstance(value, list):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{value!r}`" if value != "" else '`""`'


def _meanings() -> dict[tuple[str, str], str]:
    """What the models' docstrings say, by class and field; the class itself under an empty field."""
    modules: Iterable[ModuleType] = (
        hakuriver.models.access,
        hakuriver.models.batches,
        hakuriver.models.errors,
        hakuriver.models.nodes,
        hakuriver.models.runner,
        hakuriver.models.submission,
        hakuriver.models.tasks,
        hakuriver.models.usage,
    )
    found: dict[tuple[str, str], str] = {}
    for module in modules:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                found.update(of_class(node))
    return found


def of_class(node: ast.ClassDef) -> Iterator[tuple[tuple[str, str], str]]:
    yield (node.name, ""), " ".join((ast.get_docstring(node) or "").split())
    for before, after in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            yield (node.name, ast.unparse(before.target)), " ".join(str(after.value.value).split())


def metrics() -> str:
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        kind = "counter" if metric.counts else "gauge"
        lines.append(row((f"`{metric.name}`", kind, labels, metric.meaning)))
    return "\n".join(lines)


def roles() -> str:
    """Who has which permission, and which endpoints ask for it."""
    document_ = host_document()
    asked: dict[str, list[str]] = {}
    for path, operations in document_["paths"].items():
        for method, operation in operations.items():
            named = re.search(r"`(\w+)`", operation["description"])
            assert named  # noqa: S101 - every operation names one
            asked.setdefault(named[1], []).append(f"{method.upper()} {path}")
    lines = [
        "| permission | admin | user | viewer | Runner | join token | endpoints |",
        "|---|---|---|---|---|---|---|",
    ]
    for permission in Permission:
        of_roles = [
            "yes" if permission in PERMISSIONS[role] else "" for role in (Role.ADMIN, Role.USER, Role.VIEWER)
        ]
        others = [
            "yes" if permission is Permission.NODE else "",
            "yes" if permission is Permission.JOIN else "",
        ]
        paths = ", ".join(f"`{name}`" for name in sorted(asked.get(permission, [])))
        lines.append("| " + " | ".join([f"`{permission}`", *of_roles, *others, paths]) + " |")
    return "\n".join(lines)


def error_codes() -> str:
    lines = ["| `error` | HTTP status | exit code of a command |", "|---|---|---|"]
    lines += [
        f"| `{kind.code}` | {kind.http_status} | {kind.exit_code} |" for kind in tree(errors.HakuRiverError)
    ]
    return "\n".join(lines)


def tree(kind: type[errors.HakuRiverError]) -> Iterator[type[errors.HakuRiverError]]:
    for child in kind.__subclasses__():
        yield child
        yield from tree(child)
