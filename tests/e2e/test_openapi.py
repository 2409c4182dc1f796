"""The OpenAPI document against the service, by schemathesis: what it says is accepted, refused and answered is."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance, use_after_free

from deploy.local.server import LocalTriton
from tests.e2e.service import KEY, Service, serving

UPLOADS = ("POST /v2/generate", "POST /v2/assets", "POST /v2/batch", "POST /v2/analyze/cost", "POST /render")
"""Operations whose input can be refused for what no schema can say: made-up bytes are no video, made-up ids no asset."""

BY_BODY = ("POST /easy/submit", "GET /easy/query")
"""Operations that answer 200 whatever comes, as HeyGem does."""

OPERATION_COUNT = 26
"""So that one that is missing in the document is noticed."""


@pytest.fixture(scope="module")
def service(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(triton.grpc_address, tmp_path_factory.mktemp("openapi")) as running:
        yield running


def excluded_checks(label: str) -> list[Any]:
    """Return the checks that do not apply to an operation."""
    if label in UPLOADS:
        return [use_after_free, positive_data_acceptance]
    return [use_after_free, negative_data_rejection, positive_data_acceptance] if label in BY_BODY else [use_after_free]


def list_names(operation: Any) -> set[str]:
    """Return the names of an operation's query parameters that are lists."""
    schemas = {parameter.name: parameter.definition["schema"] for parameter in operation.query}
    return {name for name, schema in schemas.items() if any(kind.get("type") == "array" for kind in (schema, *schema.get("anyOf", ())))}


def is_right_once_sent(value: Any, *, is_list: bool) -> bool:
    """Tell whether a wrong value of a query is none in a URL: of an empty one nothing is left there, and one value is a list of one."""
    return value in (None, [], {}) or (is_list and not isinstance(value, list | dict))


def explore(operation: Any, mode: GenerationMode, excluded: list[Any]) -> None:
    """Call an operation with made-up requests of a kind: as documented, or not."""
    lists = list_names(operation)

    @settings(max_examples=12, database=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if mode is GenerationMode.NEGATIVE and any(is_right_once_sent(value, is_list=name in lists) for name, value in (case.query or {}).items()):
            return
        case.call_and_validate(headers={"x-api-key": KEY}, excluded_checks=excluded, timeout=60)

    with suppress(Unsatisfiable):  # an operation without parameters cannot be called wrongly
        check()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_operations_are_as_documented(mode: GenerationMode, service: Service) -> None:
    document = schemathesis.openapi.from_url(f"{service.url}/openapi.json", headers={"x-api-key": KEY})
    operations = [result.ok() for result in document.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == OPERATION_COUNT
    for operation in operations:
        explore(operation, mode, excluded_checks(operation.label))


def test_document_asks_for_a_key_only_where_the_service_does(service: Service, triton: LocalTriton, tmp_path: Any) -> None:
    def secured(document: dict[str, Any]) -> set[str]:
        return {path for path, operations in document["paths"].items() for operation in operations.values() if "security" in operation}

    locked = secured(service.http.get("/openapi.json").json())
    assert {"/v2/generate", "/v2/assets", "/v2/batch", "/render", "/metrics"} <= locked
    assert not {"/healthz", "/readyz"} & locked
    with serving(triton.grpc_address, tmp_path, key="") as open_service:
        assert not secured(open_service.http.get("/openapi.json").json())
