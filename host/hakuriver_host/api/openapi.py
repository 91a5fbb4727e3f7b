"""The OpenAPI 3.1 document, made of the endpoints' own declarations and the models that parse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from hakuriver.errors import (
    DeniedError,
    HakuRiverError,
    InternalError,
    StorageError,
    TooLargeError,
    UnauthenticatedError,
    UsageError,
    VersionError,
)
from hakuriver.models.errors import ErrorBody
from hakuriver.version import VERSION_HEADER, __version__
from hakuriver_host.api.endpoint import Endpoint

_REF = "#/components/schemas/{model}"
_ALWAYS: tuple[type[HakuRiverError], ...] = (
    UsageError,
    UnauthenticatedError,
    DeniedError,
    VersionError,
    StorageError,
    InternalError,
)
_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "task_id": {"type": "string", "pattern": "^[0-9]{1,19}$"},
    "action": {"type": "string", "enum": ["pause", "resume"]},
    "stream": {"type": "string", "enum": ["stdout", "stderr"]},
    "kind": {"type": "string", "enum": ["archive", "rootfs", "dockerfile"]},
}


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The whole document."""
    endpoints = list(endpoints)
    schemas = _Schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HakuRiver Host",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A user's, a node's or the join token.",
                }
            },
        },
    }


class _Schemas:
    """JSON schemas of all models in use, and references to them."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        wanted: set[tuple[str, JsonSchemaMode]] = set()
        kinds: dict[str, Any] = {_key(ErrorBody): ErrorBody}
        for endpoint in endpoints:
            if endpoint.body is not None:
                kinds[_key(endpoint.body)] = endpoint.body
                wanted.add((_key(endpoint.body), "validation"))
            kinds[_key(endpoint.returns)] = endpoint.returns
            wanted.add((_key(endpoint.returns), "serialization"))
        wanted.add((_key(ErrorBody), "serialization"))
        inputs = [(key, mode, TypeAdapter(kinds[key])) for key, mode in sorted(wanted)]
        schemas, definitions = TypeAdapter.json_schemas(
            inputs, ref_template=_REF, schema_generator=GenerateJsonSchema
        )
        self._by_key = dict(schemas)
        self.definitions: dict[str, Any] = definitions.get("$defs", {})

    def of(self, kind: Any, mode: JsonSchemaMode) -> dict[str, Any]:
        return self._by_key[_key(kind), mode]

    @property
    def error(self) -> dict[str, Any]:
        return self.of(ErrorBody, "serialization")


def _key(kind: Any) -> str:
    return str(kind)


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "description": f"Needs the permission `{endpoint.permission}`.",
        "parameters": _parameters(endpoint),
        "responses": _responses(endpoint, schemas),
    }
    if endpoint.body is not None:
        content = {"application/json": {"schema": schemas.of(endpoint.body, "validation")}}
        operation["requestBody"] = {"required": True, "content": content}
    if endpoint.takes is not None:
        content = {endpoint.takes: {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _PATH_PARAMETERS.get(name, {"type": "string", "minLength": 1}),
        }
        for name in endpoint.parameters
    ]
    schema = endpoint.query.model_json_schema(ref_template=_REF)
    definitions = schema.get("$defs", {})
    for name, field in schema.get("properties", {}).items():
        parameters.append(
            {"name": name, "in": "query", "required": False, "schema": _inlined(field, definitions)}
        )
    if endpoint.idempotent_by_key:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        )
    return parameters


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its references resolved: query models define nothing that others use."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}


def _responses(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    headers = {VERSION_HEADER: {"schema": {"type": "string"}, "description": "The Host's version."}}
    headers |= {
        name: {"schema": {"type": "string"}, "description": meaning}
        for name, meaning in endpoint.headers.items()
    }
    schema = (
        schemas.of(endpoint.returns, "serialization")
        if endpoint.media_type == "application/json"
        else {"type": "string"}
    )
    responses: dict[str, Any] = {
        str(endpoint.status): {
            "description": endpoint.summary,
            "headers": headers,
            "content": {media_type: {"schema": schema} for media_type in endpoint.media_type.split(", ")},
        }
    }
    kinds = {*_ALWAYS, *endpoint.errors, *((TooLargeError,) if endpoint.body or endpoint.takes else ())}
    by_status: dict[int, list[str]] = {}
    for kind in sorted(kinds, key=lambda kind: kind.code):
        by_status.setdefault(kind.http_status, []).append(kind.code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = {
            "description": ", ".join(codes),
            "content": {"application/json": {"schema": schemas.error}},
        }
    return responses
