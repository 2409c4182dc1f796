"""The service's composition root."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from orchestrator.api.asset_uploads import files_of, forget_old
from orchestrator.api.batches import BatchAnnouncer
from orchestrator.api.context import Context
from orchestrator.api.document import complete_document
from orchestrator.api.easy import check_shared_folder, clear_shared_folder, deliver, easy_router
from orchestrator.api.guard import Entrance, Guard, Limits, is_loopback
from orchestrator.api.health import Readiness, health_router
from orchestrator.api.holds import Holds
from orchestrator.api.keys import ApiKeys, LinkSigner
from orchestrator.api.metrics import TritonCollector, metrics_router
from orchestrator.api.page import page_router
from orchestrator.api.page.docs import docs_router
from orchestrator.api.problems import add_problem_handlers
from orchestrator.api.render import forget_live_renders, render_router
from orchestrator.api.server import listen, serve
from orchestrator.api.uploads import Uploads
from orchestrator.api.v2 import v2_router
from orchestrator.api.v2_asset_lookup import asset_lookup_router
from orchestrator.api.v2_assets import assets_router
from orchestrator.api.v2_batch import batch_router
from orchestrator.api.v2_errors import errors_router
from orchestrator.api.v2_generations import generations_router
from orchestrator.api.v2_jobs import compact_json, generation
from orchestrator.api.v2_models import models_router
from orchestrator.api.v2_uploads import uploads_router
from orchestrator.embedded import wanted_device
from orchestrator.errors import InvalidOption
from orchestrator.fetching import fetch_policy
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import LIP_SYNC
from orchestrator.jobs.hooks import Hooks
from orchestrator.jobs.ledger import Ledger, database_url
from orchestrator.jobs.model import JobView
from orchestrator.jobs.records import Asset, Batch, Records, Upload
from orchestrator.jobs.service import JobService
from orchestrator.jobs.storage import Storage
from orchestrator.media.fetch import fetch, post
from orchestrator.media.limits import MediaLimits
from orchestrator.media.nvdec import chosen_decoder
from orchestrator.models.repository import installed_pack
from orchestrator.settings import Settings, split_list

log = logging.getLogger("lipsync.service")

SHUTDOWN_GRACE_S = 20.0
"""How long running jobs may take to finish their segment once the service was told to stop, s."""

VERSION = version("lipsync-triton")


def create_app(client: TritonClient, settings: Settings, stopping: threading.Event, local_url: str) -> tuple[Guard, AbstractContextManager[None]]:
    """Return the HTTP service over a Triton that the caller opened and closes, and its work on jobs, which has to go on around the serving.

    Args:
        client: Triton.
        settings: of this host.
        stopping: set by the server when it was told to stop.
        local_url: where the service listens, for links in webhooks.

    Raises:
        InvalidOption: a setting has a value that cannot be used.
        StorageError: the data folder cannot be used.
    """
    keys = ApiKeys.load(settings.api_keys, settings.api_keys_file)
    policy = fetch_policy(settings)
    limits = MediaLimits(settings.max_duration_s, settings.max_pixels, settings.max_frames)
    assets, asset_uploads, holds = Records(settings.data / "assets", Asset), Records(settings.data / "uploads", Upload), Holds()
    easy_data = settings.easy_data or Path.home() / "duix_avatar_data" / "face2face" / "temp"

    def webhook_body(view: JobView) -> bytes:
        return compact_json(generation(view, context, context.base_url()).model_dump(mode="json"))

    def clean_up() -> None:
        forget_old(asset_uploads)
        clear_shared_folder(easy_data)

    hooks = Hooks(
        fetch=lambda url, write, is_cancelled: fetch(url, write, policy, is_cancelled),
        post=lambda url, body, headers: post(url, body, headers, policy),
        webhook_body=webhook_body,
        deliver=lambda view, result: deliver(view, result, easy_data),
        clean_up=clean_up,
        kept=lambda: holds.held() | files_of(asset_uploads) | {asset.path for asset in assets.all()},
    )
    service = JobService(settings, client, hooks)
    context = Context(
        service=service,
        uploads=Uploads(service.storage, holds, settings.max_upload_bytes, settings.max_uploads),
        holds=holds,
        assets=assets,
        asset_uploads=asset_uploads,
        batches=Records(settings.data / "batches", Batch),
        entrance=Entrance(keys, LinkSigner.load(settings.data), _host_names(settings.public_url)),
        fetch_policy=policy,
        media_limits=limits,
        model=installed_pack(settings.model_repository, LIP_SYNC) or LIP_SYNC,
        model_aliases=frozenset(split_list(settings.model_aliases)),
        retention_s=settings.retention_s,
        easy_data=easy_data,
        public_url=settings.public_url,
        local_url=local_url,
        served_by=f"{socket.gethostname()} {settings.data.resolve()} {local_url}",
        stopping=stopping,
    )
    registry = CollectorRegistry()
    service.register_metrics(registry)
    registry.register(TritonCollector(client))
    app = _routes(context, Readiness(client, wanted_device(settings)), registry)
    guard = Guard(app, context.entrance, Limits(settings.max_upload_bytes, settings.upload_stall_s, settings.upload_min_bytes_per_s))
    return guard, _working(context, settings)


def open_listener(settings: Settings) -> socket.socket:
    """Check what can be checked before anything is started, and open the listening socket.

    Raises:
        InvalidOption: a setting has a value that cannot be used, the service would not be safe, or the port is taken.
        GpuUnavailable: NVDEC is set and cannot be used.
        StorageError: the data folder, the jobs' database, or the folder that is set to be shared with HeyGem's clients cannot be used.
    """
    keys = ApiKeys.load(settings.api_keys, settings.api_keys_file)
    if not is_loopback(settings.host) and not keys:
        raise InvalidOption(f"The service does not listen on {settings.host} without API keys; set LIPSYNC_API_KEYS, or listen on 127.0.0.1.")
    fetch_policy(settings)
    chosen_decoder(settings)
    Storage(settings.data)
    Ledger(database_url(settings.database_url, settings.data / "jobs.sqlite")).close()
    if settings.easy_data is not None:
        check_shared_folder(settings.easy_data)
    try:
        return listen(settings.host, settings.port)
    except OSError as exc:
        place = f"{settings.host} port {settings.port}"
        raise InvalidOption(f"The service cannot listen on {place} ({exc.strerror}); choose another with --host or --port.") from exc


def run_service(client: TritonClient, settings: Settings, listener: socket.socket) -> None:
    """Serve on an open socket until SIGTERM or Ctrl-C.

    Raises:
        StorageError: the data folder or the database cannot be used, or another service uses them.
    """
    stopping = threading.Event()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    app, working = create_app(client, settings, stopping, url)
    with working:
        log.info("listening on %s", url)
        serve(app, stopping, listener)


def _routes(context: Context, readiness: Readiness, registry: CollectorRegistry) -> FastAPI:
    app = FastAPI(
        title="Lip-sync render service",
        version=VERSION,
        description="Video of a person and speech in, the same video with lips that follow the speech out.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    add_problem_handlers(app)
    for router in (
        page_router(),
        docs_router(),
        health_router(readiness, lambda: context.service.is_accepting),
        metrics_router(context, registry),
        v2_router(context),
        generations_router(context),
        errors_router(),
        uploads_router(context),
        asset_lookup_router(context),
        assets_router(context),
        batch_router(context),
        models_router(context, VERSION),
        easy_router(context),
        render_router(context, readiness),
    ):
        app.include_router(router)
    complete_document(app, bool(context.entrance.keys))
    return app


@contextmanager
def _working(context: Context, settings: Settings) -> Iterator[None]:
    """Work on jobs until the block ends.

    Raises:
        StorageError: the database cannot be used, or another service uses the data folder.
    """
    service, announcer = context.service, BatchAnnouncer(context, settings.webhook_secret, max(settings.history_s, settings.retention_s))
    service.start()
    try:
        forget_live_renders(service, context.served_by)
        announcer.start()
        yield
    finally:
        log.info("stopping; what runs finishes its segment, and goes on at the next start")
        context.stopping.set()
        announcer.close()
        service.close(SHUTDOWN_GRACE_S)
        log.info("stopped")


def _host_names(public_url: str | None) -> frozenset[str]:
    name = urlsplit(public_url).hostname if public_url else None
    return frozenset({name.lower()} if name else ())
