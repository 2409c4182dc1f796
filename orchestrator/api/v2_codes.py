"""sync.so's words for what goes wrong: its clients decide by them whether to try again, and know no others."""

from collections.abc import Mapping
from types import MappingProxyType

BAD_INPUT = "generation_input_validation_failed"
BAD_VIDEO = "generation_input_video_invalid"
BAD_FACE = "generation_input_face_selection_invalid"
AWAY = "generation_infra_service_unavailable"
EXHAUSTED = "generation_infra_resource_exhausted"
STORAGE = "generation_infra_storage_error"
TIMEOUT = "generation_timeout"
FAILED = "generation_pipeline_failed"
TOO_MANY = "concurrency_limit_reached"
NO_GENERATION = "generation_not_found"
BAD_KEY = "INVALID_IDEMPOTENCY_KEY"

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        BAD_INPUT: "The request, or a file of it, cannot be used.",
        BAD_VIDEO: "The video shows no usable face.",
        BAD_FACE: "The face that was chosen is not in the video.",
        AWAY: "A server that is needed, Triton or that of a URL, does not answer.",
        EXHAUSTED: "Triton is full, or the disk.",
        STORAGE: "A file, a folder or the jobs' database cannot be used.",
        TIMEOUT: "Triton is too slow, or nothing got finished for too long.",
        FAILED: "The video could not be rendered.",
        TOO_MANY: "Too many jobs wait.",
        NO_GENERATION: "There is no such job.",
        BAD_KEY: "The Idempotency-Key is malformed, or given twice.",
    }
)
"""What each says of several of our codes."""

SYNC_CODES: Mapping[str, str] = MappingProxyType(
    {
        "invalid_request": BAD_INPUT,
        "invalid_option": BAD_INPUT,
        "url_refused": BAD_INPUT,
        "missing_file": BAD_INPUT,
        "unreadable_media": BAD_INPUT,
        "missing_stream": BAD_INPUT,
        "empty_stream": BAD_INPUT,
        "limit_exceeded": BAD_INPUT,
        "no_face_found": BAD_VIDEO,
        "speaker_not_found": BAD_FACE,
        "fetch_failed": AWAY,
        "inference_unavailable": AWAY,
        "interrupted": AWAY,
        "inference_overloaded": EXHAUSTED,
        "storage_full": EXHAUSTED,
        "storage_failed": STORAGE,
        "inference_timeout": TIMEOUT,
        "stalled": TIMEOUT,
        "inference_rejected": FAILED,
        "contract_mismatch": FAILED,
        "gpu_unavailable": FAILED,
        "encode_failed": FAILED,
        "crash_loop": FAILED,
        "render_failed": FAILED,
        "queue_full": TOO_MANY,
        "unknown_job": NO_GENERATION,
        "invalid_idempotency_key": BAD_KEY,
    }
)
"""By our code; one that sync.so has no word for stays as it is."""


def sync_code(code: str) -> str:
    """Return what sync.so calls one of our codes."""
    return SYNC_CODES.get(code, code)
