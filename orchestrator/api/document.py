"""The OpenAPI document: what FastAPI derives from the routes, completed by what the routes read and answer by hand."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from orchestrator.api.problems import ProblemDetails, V2Error
from orchestrator.api.v2_schema import AssetIds, AssetRequest, AssetUpdate, BatchRequest, GenerateRequest, UploadRequest

BY_HAND: tuple[type[BaseModel], ...] = (AssetIds, AssetRequest, AssetUpdate, BatchRequest, GenerateRequest, UploadRequest, V2Error, ProblemDetails)
"""Bodies that no route declares as a parameter or a return type."""


def complete_document(app: FastAPI, needs_key: bool) -> None:
    """Have the application answer with the completed document, which asks for an API key only where the service does."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, needs_key)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI, needs_key: bool) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, definitions = models_json_schema([(model, "validation") for model in BY_HAND], ref_template="#/components/schemas/{model}")
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for name, definition in definitions["$defs"].items():
        components.setdefault(name, definition)
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own error body, which is never sent
        components.pop(name, None)
    for operations in schema["paths"].values():
        for operation in operations.values():
            _drop_foreign_error(operation.get("responses", {}))
            if not needs_key:
                operation.pop("security", None)
                operation["responses"].pop("401", None)
    return schema


def _drop_foreign_error(responses: dict[str, Any]) -> None:
    """Remove FastAPI's own 422 where a route did not declare one."""
    content = responses.get("422", {}).get("content", {})
    if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
        del responses["422"]
