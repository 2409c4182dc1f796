"""Settings: the only reader of the environment. Every variable starts with LIPSYNC_."""

import ipaddress
import logging
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

log = logging.getLogger("lipsync.settings")

_ROOT = Path(__file__).resolve().parents[1]

_COMPOSE_VARIABLES = frozenset({"LISTEN", "MODEL_CONFIG"})
"""What only docker-compose.yml reads."""

Device = Literal["auto", "cpu", "gpu", "tensorrt"]
DecoderChoice = Literal["software", "nvdec"]
Transport = Literal["auto", "grpc", "shared_memory"]


CENTURY_S = 100 * 365 * 86400.0
"""Longer ones end beyond the times that can be written down."""


def _address(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):\d{1,5}", text) or not 0 < int(text.rpartition(":")[2]) < 1 << 16:
        raise ValueError("must be HOST:PORT without anything in front, as in 127.0.0.1:8001")
    return text


def _public_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_complete = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
        is_extended = "@" in parts.netloc or "?" in text or "#" in text  # links are made by adding a path and a query
    except ValueError:
        is_complete = is_extended = False
    if not is_complete or is_extended or not text.isprintable() or " " in text:
        raise ValueError("must be a complete http or https URL without a user, ? or #, as in https://lipsync.example.org")
    return text


def _database_url(text: str) -> str:
    if not re.match(r"postgres(ql)?(\+psycopg)?://", text):
        raise ValueError("must be postgresql://USER:PASSWORD@HOST/NAME; leave it unset for SQLite in the data folder")
    return text


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError("must be 1 to 100 letters, digits or . _ - that begin with a letter or digit")
    return text


def _listening_host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not re.fullmatch(r"([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}", host):
            raise ValueError("must be an address or a name alone, as in 127.0.0.1 or ::1; the port is LIPSYNC_PORT") from None
    return host


def _place(path: Path) -> Path:
    if str(path) != str(path).strip():
        raise ValueError("must be a path without blanks at its ends")
    try:
        return path.expanduser()  # what a shell does with ~ nobody does in a file of variables
    except RuntimeError:
        raise ValueError("begins with ~ and the name of a user who is not on this host; write the whole path") from None


Address = Annotated[str, AfterValidator(_address)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
HostName = Annotated[str, AfterValidator(_host_name)]
ListeningHost = Annotated[str, AfterValidator(_listening_host)]
Place = Annotated[Path, AfterValidator(_place)]
"""A file or folder. Files of variables keep the blanks at a line's end, and a folder named so would be another one than the one that is meant."""


class Settings(BaseSettings):
    """How this host renders. Command-line options come before the environment."""

    model_config = SettingsConfigDict(env_prefix="LIPSYNC_", env_ignore_empty=True, extra="ignore")

    triton: Address | None = Field(None, description="gRPC address HOST:PORT of a Triton that already runs; unset starts the embedded one")
    triton_home: Place = Field(_ROOT / ".triton", description="folder of the embedded Triton")
    model_repository: Place = Field(_ROOT / "model_repository", description="folder of the models the embedded Triton serves")
    triton_metrics: Address | None = Field(None, description="metrics address HOST:PORT of that Triton; unset means port 8002 of the same host")
    device: Device = Field(
        "auto", description="where models run: auto, cpu, gpu or tensorrt; auto takes the CPU only where nothing shows an NVIDIA GPU"
    )
    face_landmarks: bool = Field(True, description="a face_landmarks model, where there is one, places crops and bounds what is pasted")
    face_enhancer: bool = Field(False, description="a face_enhancer model, where there is one, goes over every rendered face; a job may ask for it")
    face_occluder: bool = Field(True, description="a face_occluder model, where there is one, keeps hands and microphones before the mouth")
    voice_activity: bool = Field(True, description="a voice_activity model, where there is one, keeps the mouth at rest where nobody speaks")
    voice_separator: bool = Field(True, description="a voice_separator model, where there is one, takes music and noise from what the lips hear")
    transport: Transport = Field(
        "auto", description="how tensors reach Triton: auto, grpc or shared_memory; auto takes shared memory where Triton sees this host's"
    )
    request_deadline_s: float = Field(120.0, gt=0, le=3600, description="deadline of one request to Triton, queueing included, s")
    data: Place = Field(_ROOT / ".data", description="folder of the service's inputs, jobs, results and face tracks")
    database_url: DatabaseUrl | None = Field(
        None,
        description="database of the jobs, postgresql://USER:PASSWORD@HOST/NAME when several hosts share them; unset is SQLite in the data folder",
    )
    host_name: HostName | None = Field(None, description="this host's name among those that share a database; unset makes one up once and keeps it")
    max_queued_jobs: int = Field(1000, ge=1, description="jobs that may wait; further ones are refused with queue_full")
    stall_s: float = Field(60.0, gt=0, description="a render in which nothing is finished for this long has stalled and is tried again, s")
    max_attempts: int = Field(6, ge=1, description="attempts in a row that may fail without getting any further before the job fails")
    free_space_floor_bytes: int = Field(1 << 30, ge=0, description="no new work is taken while less disk space than this is free, bytes")
    track_cache_bytes: int = Field(1 << 30, ge=0, description="largest size of the face-track cache, bytes; the tracks used longest ago go first")
    retention_s: float = Field(7 * 86400.0, gt=0, le=CENTURY_S, description="how long the result and inputs of a finished job are kept, s")
    history_s: float = Field(
        90 * 86400.0, gt=0, le=CENTURY_S, description="how long a finished job itself is remembered, and a batch with its jobs, s"
    )
    webhook_secret: str = Field("", description="signs webhooks; empty sends them unsigned")
    log_format: Literal["text", "json"] = Field("text", description="how the service logs; json is one object a line")
    max_upload_bytes: int = Field(4 << 30, ge=1 << 20, description="largest request body the service accepts, bytes")
    max_concurrent_renders: int | None = Field(
        None,
        ge=1,
        le=64,
        description="renders the service runs at a time, further ones wait; unset is what `lipsync tune` measured, else by cores and memory",
    )
    encoder_threads: int | None = Field(
        None, ge=1, le=64, description="threads of a render's encoder; unset is what `lipsync tune` measured, else one per core, at most 16"
    )
    decoder: DecoderChoice | None = Field(
        None,
        description="what decodes videos: software or nvdec; nvdec does it on an NVIDIA GPU where the pictures are the same (8-bit 4:2:0 H.264, "
        "HEVC and VP9), and software goes on where it fails; unset is what `lipsync tune` measured, else software",
    )
    host: ListeningHost = Field("127.0.0.1", description="address the service listens on; one that is not of this host alone needs API keys")
    port: int = Field(8383, ge=0, le=65535, description="port the service listens on; 8383 is what HeyGem / Duix.Avatar clients call")
    public_url: PublicUrl | None = Field(
        None,
        description="URL under which clients reach the service, for links in answers and webhooks; unset takes the request's, in webhooks that of "
        "LIPSYNC_HOST",
    )
    api_keys: str = Field("", description="API keys as NAME:KEY, separated by commas; a key has 16 characters or more")
    api_keys_file: Place | None = Field(None, description="file with further API keys, one NAME:KEY a line")
    model_aliases: str = Field(
        "lipsync-2,lipsync-2-pro,lipsync-1.9.0-beta,sync-3", description="model names of /v2 requests that stand for the installed lip model"
    )
    fetch_hosts: str = Field(
        "", description="hosts that input URLs and webhooks may name, separated by commas, * as a wildcard; empty is every public one"
    )
    fetch_networks: str = Field(
        "", description="networks (CIDR, separated by commas) that input URLs and webhooks may reach although they are not public"
    )
    upload_stall_s: float = Field(30.0, gt=0, description="longest time without data from a client that sends a request, s")
    upload_min_bytes_per_s: int = Field(
        1024, ge=1, description="an upload that is slower on average, once it has lasted for the time above, is refused, bytes/s"
    )
    max_uploads: int = Field(256, ge=1, description="uploads that are received at a time; further ones wait")
    max_duration_s: float = Field(4 * 3600.0, gt=0, description="longest video or speech the service accepts, s")
    max_pixels: int = Field(8192 * 4352, ge=1024, description="largest frame the service accepts, width × height, px")
    max_frames: int = Field(1_000_000, ge=1, description="most frames an input or output of the service may have")
    easy_data: Place | None = Field(
        None,
        description="folder shared with HeyGem / Duix.Avatar clients; unset is duix_avatar_data/face2face/temp in the home folder, as they have it",
    )

    @property
    def optional_roles(self) -> frozenset[str]:
        """Optional roles that take part, where there is a model, when a render's options leave it open."""
        roles = ("face_landmarks", "face_enhancer", "face_occluder", "voice_activity", "voice_separator")
        return frozenset(role for role in roles if getattr(self, role))


def split_list(text: str) -> list[str]:
    """Return the parts of a setting that is several, separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def warn_of_what_is_left_out(settings: Settings) -> None:
    """Log each variable of the environment that is named like a setting and is none, as a mistyped one, or that says nothing without another one."""
    if settings.triton_metrics is not None and settings.triton is None:
        log.warning("LIPSYNC_TRITON_METRICS is left out: it belongs to the Triton of LIPSYNC_TRITON, and the embedded one's are known")
    known = [name.upper() for name in Settings.model_fields]
    for variable in sorted(os.environ):
        prefix, _, name = variable.upper().partition("_")
        if prefix == "LIPSYNC" and name not in {*known, *_COMPOSE_VARIABLES}:
            nearest = "".join(f"; did you mean LIPSYNC_{match}?" for match in get_close_matches(name, known, 1))
            log.warning("%s is no setting, and is left out%s", variable, nearest)


def settings_table() -> str:
    """Return the settings as the Markdown table that stands in the README."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default.relative_to(_ROOT) if isinstance(field.default, Path) else field.default
        rows.append(f"| `LIPSYNC_{name.upper()}` | {f'`{default}`' if default not in (None, '') else ''} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(settings_table())
