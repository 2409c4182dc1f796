"""`/easy`: the interface of HeyGem / Duix.Avatar, whose clients share a folder with the service.

The HTTP status is 200 whatever happens; `code` in the body is what counts. Kept as clients know it; mended where it failed them: tasks are
queued while the service is busy, survive a restart, show real progress, and their outcome stays readable.
"""

import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from orchestrator.api.context import Context
from orchestrator.api.holds import Hold
from orchestrator.api.problems import Problem
from orchestrator.api.uploads import read_json
from orchestrator.errors import NotReady, QueueFull, RenderError, StorageError, UnknownJob
from orchestrator.files import remove_abandoned, storage_error
from orchestrator.inference.contract import FACE_ENHANCER
from orchestrator.jobs.model import FINAL_STATES, JobSpec, JobState, JobView
from orchestrator.media.limits import check_local
from orchestrator.media.reach import check_url, is_url
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import expected_frame_count

log = logging.getLogger("lipsync.easy")

OK, BUSY, BAD_REQUEST, UNKNOWN_TASK, BROKEN = 10000, 10001, 10002, 10004, 9999

CONTAINER_ROOT = "/code/data/"
"""Where HeyGem's own container sees the folder `face2face`, in which the shared folder is `temp`; clients that were set up for it send such paths,
or, since a bare name is one in `temp`, `../` before a path in it."""

CONTAINER_DATA = f"{CONTAINER_ROOT}temp/"
"""Where it sees the shared folder."""

MAX_CODE_CHARACTERS = 128

NO_ENHANCER = "chaofen=1 (超分) 需要 face_enhancer 模型，本服务未安装；请传 0。 There is no face enhancer here; send chaofen=0."
"""What is said to a client that asks for finer faces where nothing makes them."""

REFUSED_SWITCHES: Mapping[str, str] = {
    "watermark_switch": "本服务不加水印；请传 watermark_switch=0。 No watermark is added here; send watermark_switch=0.",
    "digital_auth": "本服务不写数字水印；请传 digital_auth=0。 No digital mark is added here; send digital_auth=0.",
}
"""What is said to a client that switches on what is not here. Ignoring it would hand out videos that lack what was asked for."""

_STATUS: Mapping[JobState, Literal[1, 2, 3]] = {"queued": 1, "running": 1, "completed": 2, "failed": 3, "cancelled": 3}


class EasyAnswer(BaseModel):
    """The answer to a submission."""

    code: Literal[10000, 10001, 10002, 9999]
    data: dict[str, Any] = {}
    msg: int | str
    """10000 as a number when the task is accepted, as HeyGem has it; a sentence otherwise."""
    success: bool


class TaskState(BaseModel):
    """A task."""

    code: str
    status: Literal[1, 2, 3]
    """1 queued or running, 2 done, 3 failed."""
    progress: int
    result: str
    """Path of the video below the shared folder, with a slash in front; empty until it is done."""
    msg: str


class QueryAnswer(BaseModel):
    """The answer to a query."""

    code: Literal[10000, 10004, 9999]
    success: bool
    msg: str
    data: TaskState | dict[str, Any]


class Refused(Exception):
    """A submission that cannot be accepted; the text is for the client's user."""

    code = "invalid_request"


def easy_router(context: Context) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/easy", tags=["easy"])

    @router.post(
        "/submit",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["audio_url", "video_url", "code"],
                            "properties": {
                                "audio_url": {"type": "string", "description": "A name in the shared folder, a path inside it, or an http(s) URL."},
                                "video_url": {"type": "string", "description": "As audio_url."},
                                "code": {"type": "string", "description": "The client's own, unique name for the task."},
                                "pn": {
                                    "enum": [0, 1, "0", "1"],
                                    "default": 1,
                                    "description": "Where the speech is longer than the video: 1 back and forth, 0 again from the start.",
                                },
                                "chaofen": {
                                    "enum": [0, 1, "0", "1"],
                                    "default": 0,
                                    "description": "1 enhances the face; needs a face_enhancer model.",
                                },
                                "watermark_switch": {"enum": [0, "0"], "default": 0},
                                "digital_auth": {"enum": [0, "0"], "default": 0},
                            },
                        }
                    }
                },
            }
        },
    )
    async def submit(request: Request) -> EasyAnswer:
        """Accept a task. The body is read as JSON whatever its content type."""
        try:
            body = await read_json(request)
            await context.run(_submit, body, context, context.owner_name(request))
        except QueueFull as exc:
            request.state.code = exc.code  # for the log, where every answer is a 200
            return EasyAnswer(code=BUSY, msg="忙碌中", success=True)
        except (Refused, Problem) as exc:
            request.state.code = exc.code
            return EasyAnswer(code=BAD_REQUEST, msg=str(exc), success=False)
        except RenderError as exc:
            request.state.code = exc.code
            return EasyAnswer(code=BROKEN if exc.retryable else BAD_REQUEST, msg=str(exc), success=False)
        except ClientDisconnect:
            raise
        except Exception:
            log.exception("a submission failed")
            return EasyAnswer(code=BROKEN, msg="系统异常", success=False)
        return EasyAnswer(code=OK, msg=OK, success=True)

    @router.get("/query")
    async def query(request: Request, code: Annotated[str, Query(description="The task's code.")] = "") -> QueryAnswer:
        """Tell how far a task is. What has ended stays readable."""
        try:
            view = await context.run(find_task, code, context, context.owner(request))
            if view is None:
                request.state.code = UnknownJob.code
                return QueryAnswer(code=UNKNOWN_TASK, success=True, msg="任务不存在", data={})
            missing = await context.run(_deliver_again, view, context) if view.state == "completed" and view.has_result else None
        except RenderError as exc:
            request.state.code = exc.code
            return QueryAnswer(code=BROKEN, success=False, msg=str(exc), data={})
        except Exception:
            log.exception("a query failed")
            return QueryAnswer(code=BROKEN, success=False, msg="系统异常", data={})
        return QueryAnswer(code=OK, success=True, msg="", data=_task(view) if missing is None else _undelivered(view, missing))

    return router


def find_task(code: str, context: Context, owner: str | None) -> JobView | None:
    """Return the task with a code."""
    if not _is_code(code):
        return None
    return next(iter(context.service.find(interface="easy", client_code=code, owner=owner, limit=1)), None)


def clear_shared_folder(folder: Path) -> None:
    """Delete videos that a crash cut short on their way into the shared folder."""
    remove_abandoned(folder.glob(f".{32 * '[0-9a-f]'}.partial"))


def check_shared_folder(folder: Path) -> None:
    """Check that a video can be put into the shared folder, which is made where it is not there.

    Raises:
        StorageError: it cannot.
    """
    with _written(folder) as partial:
        partial.touch()


def deliver(view: JobView, result: Path, folder: Path) -> None:
    """Put a finished task's video into the shared folder, complete or not at all.

    Raises:
        StorageError: it cannot be put there.
    """
    if view.spec.interface != "easy" or view.spec.client_code is None:
        return
    with _written(folder) as partial:
        shutil.copyfile(result, partial)  # a link would have the service's retention and the client share one file
        partial.chmod(0o644)
        partial.replace(folder / _result_name(view.spec.client_code))


@contextmanager
def _written(folder: Path) -> Iterator[Path]:
    """Give the path of a file to be written in the shared folder, which is gone at the end unless it was moved into place.

    Raises:
        StorageError: it cannot be written.
    """
    partial = folder / f".{uuid.uuid4().hex}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)
    except OSError as exc:
        advice = "check the folder, its owner and the free space, or set LIPSYNC_EASY_DATA to another one"
        raise storage_error(exc, f"No video can be put into {folder}", advice) from exc


def _deliver_again(view: JobView, context: Context) -> StorageError | None:
    """Make sure that the video is there before a client is told so. Returns why it cannot be put there."""
    assert view.spec.client_code is not None
    if not (context.easy_data / _result_name(view.spec.client_code)).is_file():
        try:
            deliver(view, context.service.result(view.id), context.easy_data)
        except NotReady:
            return None  # its retention ended meanwhile
        except StorageError as exc:
            return exc
    return None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a submission asks for, to tell it when repeated from another one with the same code."""

    video_url: str
    audio_url: str
    pn: int
    chaofen: int


def _submit(body: Any, context: Context, owner: str) -> None:
    """Check a submission and hand it over.

    Raises:
        Refused: it cannot be accepted.
        RenderError: an input cannot be used, or the service has no room.
    """
    code, asked = _read(body, context)
    _refuse_anothers(code, context, owner)
    before = find_task(code, context, owner if context.entrance.keys else None)
    is_same = before is not None and before.spec.request == asdict(asked)
    if before is not None and before.state not in FINAL_STATES:
        if not is_same:
            raise Refused("code正被其他任务使用。 Another task under this code is under way; use a new one, or wait for its end.")
        return
    done = before if before is not None and is_same and before.state == "completed" and before.has_result else None
    check_shared_folder(context.easy_data)
    try:
        named = _named(asked.video_url, "video_url", context), _named(asked.audio_url, "audio_url", context)
    except Refused:
        if done is not None:
            return  # asked once more, after the client has removed what it had made for the task
        raise
    if done is None:
        context.service.check_room()
    check_local(named[0], named[1:], context.media_limits)  # gigabytes that are no video are not copied first
    with context.holds.holding() as hold:
        spec = _spec(code, asked, named, context, owner, hold)
        if done is not None and (spec.video, spec.audio) == (done.spec.video, done.spec.audio):
            return  # inputs lie by their content, so these files are what they were
        # As with HeyGem, a code is free again once its task has ended: clients use a name of the avatar's for all its videos.
        key = f"easy:{code}" if before is None else f"easy:{code}:{before.id}"
        view = context.service.submit(spec, idempotency_key=key)
    try:
        _refuse_anothers(code, context, owner, before=view.created_at)
    except Refused:  # both came at the same time
        context.service.delete(view.id)
        raise


def _read(body: Any, context: Context) -> tuple[str, _Asked]:
    """Return a submission's code and what it asks for.

    Raises:
        Refused: it is none, or asks for what is not here.
    """
    if not isinstance(body, dict):
        raise Refused("请求体必须是 JSON 对象。 The body must be a JSON object.")
    for name in ("audio_url", "video_url", "code"):
        value = body.get(name)
        if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
            raise Refused(f"{name}参数缺失")
    code = str(body["code"])
    if not _is_code(code):
        raise Refused(f"code参数错误：最多 {MAX_CODE_CHARACTERS} 个字符，不能含 / 和 \\。 The code must not be a path.")
    for name, why in REFUSED_SWITCHES.items():
        if _switch(body, name, 0):
            raise Refused(why)
    chaofen = _switch(body, "chaofen", 0)
    if chaofen and not context.service.has_model(FACE_ENHANCER):
        raise Refused(NO_ENHANCER)
    return code, _Asked(str(body["video_url"]), str(body["audio_url"]), _switch(body, "pn", 1), chaofen)


def _spec(code: str, asked: _Asked, named: tuple[str | Path, str | Path], context: Context, owner: str, hold: Hold) -> JobSpec:
    """Copy a submission's inputs, and return its job.

    Raises:
        Refused: a file cannot be read.
        RenderError: an input cannot be used.
    """
    video, audio = (_copied(source, name, context, hold) for source, name in zip(named, ("video_url", "audio_url"), strict=True))
    lengths = check_local(video, [audio], context.media_limits)  # its owner may have changed a file meanwhile
    options = RenderOptions(sync_mode="bounce" if asked.pn else "loop", face_enhancer=True if asked.chaofen else None)
    return JobSpec(
        video=str(video),
        audio=str(audio),
        options=options,
        interface="easy",
        client_code=code,
        owner=owner,
        request=asdict(asked),
        expected_frame_count=None if lengths is None else expected_frame_count(options, lengths),
    )


def _refuse_anothers(code: str, context: Context, owner: str, before: datetime | None = None) -> None:
    """Refuse a code under which another owner's task is known, or was `before` a time: the result would take the place of that one's.

    Raises:
        Refused: there is one.
    """
    newest = context.service.find(interface="easy", client_code=code, limit=1, before=before) if context.entrance.keys else []
    if newest and newest[0].spec.owner not in (owner, ""):
        raise Refused("code已被他人使用。 Somebody else has used this code; use another one.")


def _switch(body: Mapping[str, Any], name: str, default: int) -> int:
    """Return an optional 0 or 1, given as a number or as text."""
    value = body.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, bool) or value not in (0, 1, "0", "1"):
        raise Refused(f"{name}参数错误：只能是 0 或 1。 {name} must be 0 or 1.")
    return int(value)


def _named(value: str, name: str, context: Context) -> str | Path:
    """Return an input's URL, or its file in the shared folder."""
    if is_url(value):
        check_url(value, context.fetch_policy)
        return value
    folder = context.easy_data
    value = re.sub("/+", "/", value)  # clients join /code/data and a path that begins with a slash
    # A result, too, is told with a slash in front.
    places = [(folder, value.removeprefix(CONTAINER_DATA)), (folder, value.lstrip("/"))]
    if folder.parts[-2:] == ("face2face", "temp") and value.startswith((CONTAINER_ROOT, "../")):
        places.append((folder.parent, value.removeprefix(CONTAINER_ROOT).removeprefix("../")))
    for root, name_there in places:
        with suppress(OSError, ValueError, RuntimeError):
            path = (root / name_there).resolve(strict=True)
            if path.is_relative_to(root.resolve()) and path.is_file():
                return path
    raise Refused(f"{name}文件不存在：请放在数据目录中。 There is no such file in the shared folder.")


def _copied(source: str | Path, name: str, context: Context, hold: Hold) -> str | Path:
    """Return an input's URL, or a copy of its file: clients remove some files right after they have submitted them."""
    if isinstance(source, str):
        return source
    with context.service.storage.incoming(source.name, context.fetch_policy.max_bytes) as sink:
        try:
            with open(source, "rb", opener=lambda opened, flags: os.open(opened, flags | os.O_NOFOLLOW)) as file:
                while piece := file.read(1 << 20):
                    sink.write(piece)
        except OSError as exc:
            raise Refused(f"{name}文件不可读。 The file cannot be read.") from exc
        return sink.commit(hold.add)


def _task(view: JobView) -> TaskState:
    code = view.spec.client_code or ""
    status = _STATUS[view.state]
    if status == 2:
        return TaskState(code=code, status=2, progress=100, result=f"/{_result_name(code)}", msg="任务完成")
    if status == 3:
        return TaskState(code=code, status=3, progress=view.percent, result="", msg=view.error or "任务已取消")
    msg = f"排队中，第 {view.queue_position} 位" if view.queue_position else f"{view.stage} {view.done}/{view.total}"
    return TaskState(code=code, status=1, progress=min(view.percent, 99), result="", msg=" ".join(filter(None, (msg, view.error))))


def _undelivered(view: JobView, why: StorageError) -> TaskState:
    """Return a rendered task as one that still runs: the client asks again, and has its video once the folder can be written."""
    return TaskState(code=view.spec.client_code or "", status=1, progress=99, result="", msg=str(why))


def _result_name(code: str) -> str:
    return f"{code}-r.mp4"


def _is_code(code: str) -> bool:
    """Tell whether a code can be part of a file name."""
    return (
        bool(code)
        and len(code) <= MAX_CODE_CHARACTERS
        and len(code.encode("utf-8", "replace")) <= 200
        and code.isprintable()
        and (not set(code) & set('/\\:*?"<>|') and not code.startswith(".") and code == code.strip())
    )
