"""The OpenAPI document against the service, by schemathesis: what it says is accepted, refused and answered is."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance, use_after_free

from deploy.local.server import LocalTriton
from tests.e2e.service import KEY, Service, secured_paths, serving

UPLOADS = (
    "POST /v2/generate",
    "POST /v2/assets",
    "POST /v2/assets/upload",
    "POST /v2/batch",
    "POST /v2/analyze/cost",
    "POST /v2/generations/estimate",
    "POST /render",
)
"""Operations whose input can be refused for what no schema can say: made-up bytes are no video, made-up ids no asset, a setting bounds sizes."""

BY_BODY = ("POST /easy/submit", "GET /easy/query")
"""Operations that answer 200 whatever comes, as HeyGem does."""

OPERATION_COUNT = 38
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


def is_query_right_as_sent(case: Any) -> bool:
    """Tell whether a query that was made up to be wrong is none any more once it is in a URL.

    Nothing is left there of an empty value, one value is a list of one, an object's members are parameters that nobody asks for, and
    everything is text. The key's header is always right: every call has it.
    """
    wrong = {location.value for location, component in case.meta.components.items() if component.mode is GenerationMode.NEGATIVE}
    if not wrong <= {"query", "header"}:
        return False
    url = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare().url or ""
    sent = parse_qs(urlsplit(url).query, keep_blank_values=True)
    for parameter in case.operation.query:
        values, schema = sent.get(parameter.name), parameter.definition["schema"]
        if values is None:
            continue
        kinds = {kind.get("type") for kind in (schema, *schema.get("anyOf", ()))}
        value: Any = values if "array" in kinds else values[-1]
        if "integer" in kinds and re.fullmatch(r"[+-]?\d+(\.0+)?", values[-1]):
            value = int(float(values[-1]))
        document = {**schema, "components": case.operation.schema.raw_schema["components"]}
        if not jsonschema_rs.validator_for(document, validate_formats=True).is_valid(value):
            return False
    return True


def explore(operation: Any, mode: GenerationMode, excluded: list[Any]) -> None:
    """Call an operation with made-up requests of a kind: as documented, or not."""

    @settings(max_examples=12, database=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        # In a form everything is text, too, and there schemathesis does not say what it sent.
        is_unclear = mode is GenerationMode.NEGATIVE and (case.media_type == "multipart/form-data" or is_query_right_as_sent(case))
        case.call_and_validate(
            headers={"x-api-key": KEY}, excluded_checks=[*excluded, negative_data_rejection] if is_unclear else excluded, timeout=60
        )

    with suppress(Unsatisfiable):  # an operation without parameters cannot be called wrongly
        check()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_operations_are_as_documented(mode: GenerationMode, service: Service) -> None:
    document = schemathesis.openapi.from_url(f"{service.url}/openapi.json", headers={"x-api-key": KEY})
    operations = [result.ok() for result in document.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == OPERATION_COUNT
    for operation in operations:
        explore(operation, mode, excluded_checks(operation.label))


def test_document_asks_for_a_key_only_where_the_service_does(service: Service) -> None:
    locked = secured_paths(service)
    assert {"/v2/generate", "/v2/assets", "/v2/batch", "/render", "/metrics"} <= locked
    assert not {"/healthz", "/readyz", "/v2/errors"} & locked
