"""The OpenAPI document against the service, by schemathesis: what it says is accepted, refused and answered is."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance, use_after_free

from deploy.local.server import LocalTriton
from tests.e2e.service import KEY, Service, serving

UPLOADS = ("POST /v2/generate", "POST /v2/assets", "POST /v2/batch", "POST /v2/analyze/cost", "POST /render")
"""Operations whose input can be refused for what no schema can say: made-up bytes are no video, made-up ids no asset."""

BY_BODY = ("POST /easy/submit", "GET /easy/query")
"""Operations that answer 200 whatever comes, as HeyGem does."""


@pytest.fixture(scope="module")
def service(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(triton.grpc_address, tmp_path_factory.mktemp("openapi")) as running:
        yield running


@pytest.fixture(scope="module")
def document(service: Service) -> Any:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json", headers={"x-api-key": KEY})


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
def test_operation_is_as_documented(case: schemathesis.Case[Any]) -> None:
    excluded: list[Any] = [use_after_free]
    if case.operation.label in UPLOADS:
        excluded.append(positive_data_acceptance)
    if case.operation.label in BY_BODY:
        excluded += [negative_data_rejection, positive_data_acceptance]
    case.call_and_validate(headers={"x-api-key": KEY}, excluded_checks=excluded, timeout=60)
