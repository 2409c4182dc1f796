"""sync.so's words for errors."""

import json

import pytest

from orchestrator.api.problems import REFUSALS, problem
from orchestrator.api.v2_codes import MEANINGS, SYNC_CODES
from orchestrator.api.v2_errors import catalogue

PUBLISHED = {
    "INVALID_IDEMPOTENCY_KEY",
    "concurrency_limit_reached",
    "generation_infra_resource_exhausted",
    "generation_infra_service_unavailable",
    "generation_infra_storage_error",
    "generation_input_face_selection_invalid",
    "generation_input_validation_failed",
    "generation_input_video_invalid",
    "generation_not_found",
    "generation_pipeline_failed",
    "generation_timeout",
}
"""In sync.so's documents and its own list, autumn of 2026."""

TRY_AGAIN = {"concurrency_limit_reached", "generation_timeout", "generation_pipeline_failed"}
"""Besides generation_infra_…: what public clients of sync.so try again."""


def test_words_are_those_that_sync_so_has() -> None:
    assert set(SYNC_CODES.values()) == set(MEANINGS) == PUBLISHED
    ours = {info.code for info in catalogue()} - PUBLISHED
    assert set(SYNC_CODES) <= ours | {"render_failed"}


def test_clients_of_sync_so_try_again_what_may_help_and_nothing_that_cannot() -> None:
    for info in catalogue():
        theirs = SYNC_CODES.get(info.code)
        if theirs is None or info.code in REFUSALS:
            continue
        tried_again = theirs.startswith("generation_infra_") or theirs in TRY_AGAIN
        assert tried_again or not info.retryable, info.code
        assert not tried_again or info.statusCode >= 429, f"{info.code}: the request itself is wrong"


def test_each_word_is_in_the_list_of_errors_once() -> None:
    listed = [info.code for info in catalogue()]
    assert len(listed) == len(set(listed)) and set(listed) >= PUBLISHED
    told = {info.code: info for info in catalogue()}
    assert not told["generation_input_validation_failed"].retryable
    assert told["concurrency_limit_reached"].retryable and told["concurrency_limit_reached"].statusCode == 429
    assert told["generation_infra_service_unavailable"].retryable


@pytest.mark.parametrize(("status", "code", "helps"), [(429, "queue_full", True), (404, "unknown_job", False)])
def test_an_error_says_in_its_body_too_after_how_long_to_try_again_where_that_helps(status: int, code: str, helps: bool) -> None:
    answer = problem({"type": "http", "path": "/v2/generate"}, status, code, "A sentence.")
    told = json.loads(bytes(answer.body)).get("retryAfterSeconds")
    assert (str(told) if helps else told) == answer.headers.get("retry-after")
