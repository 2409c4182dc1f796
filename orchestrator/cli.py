"""The command line: `lipsync render | serve | triton | models | doctor | bench | tune`."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from orchestrator.cli_bench import bench
from orchestrator.cli_doctor import doctor_command
from orchestrator.cli_models import models
from orchestrator.cli_options import DeviceOption, TritonOption, read_settings, with_render_flags
from orchestrator.cli_triton import triton_command
from orchestrator.cli_tune import tune_command
from orchestrator.embedded import open_triton
from orchestrator.errors import InvalidOption, RenderError, complaint
from orchestrator.fetching import local_files
from orchestrator.heap import bound_heap
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.progress import OnProgress, Progress
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.speakers import SpeakerAudio
from orchestrator.session import refuse_unfit_models, render
from orchestrator.settings import Settings

# Without Rich's boxes: they cut the names of long options short and take [x1, y1] for markup.
app = typer.Typer(
    help="Lip-sync rendering on NVIDIA Triton.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models, name="models")
app.add_typer(bench, name="bench")
app.command("doctor")(doctor_command)
app.command("triton")(triton_command)
app.command("tune")(tune_command)
_stderr = Console(stderr=True)


@app.command("render")
@with_render_flags
def render_command(
    video: Annotated[str, typer.Option(metavar="FILE|URL", help="Video of a person, or a still image.")],
    audio: Annotated[str, typer.Option(metavar="FILE|URL", help="Speech: a sound file, or a video with sound.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write: .mp4, .mov, .webm or .mkv.")],
    speaker_audio: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AUDIO@X,Y[,FRAME]",
            help="One more speaker: his speech, and a point on his face as for --speaker (with --segments, a further speech alone). May be repeated.",
        ),
    ] = None,
    speaker_image: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Picture of the speaker, in place of --speaker; needs a face_embedder model (`lipsync models install dlib-resnet`).",
        ),
    ] = None,
    triton: TritonOption = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")] = False,
    *,
    options: RenderOptions,
) -> None:
    """Render a video with lips that follow the speech."""
    settings = read_settings(triton, device)
    others = [_speaker_audio(text, may_be_one=options.segments is not None) for text in speaker_audio or ()]
    sources = [video, audio, *(speech for speech, _ in others), *([] if speaker_image is None else [speaker_image])]
    with local_files(sources, out, settings) as files, _progress_bar() as on_progress:
        report = render(
            files[0],
            files[1],
            out,
            options=options,
            others=[SpeakerAudio(file, point) for file, (_, point) in zip(files[2:], others, strict=False)],
            speaker_image=None if speaker_image is None else files[-1],
            on_progress=on_progress,
            settings=settings,
        )
    if as_json:
        print(json.dumps(asdict(report), indent=1))
    else:
        _print_report(report)


def _speaker_audio(text: str, *, may_be_one: bool) -> tuple[str, str]:
    audio, _, point = text.rpartition("@")
    if not audio and may_be_one:
        return text, ""
    if not audio:
        raise InvalidOption(f"--speaker-audio {text!r} must be a sound file and a point on the speaker's face: AUDIO@X,Y or AUDIO@X,Y,FRAME.")
    return audio, point


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default LIPSYNC_HOST, 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on, 0 for a free one; default LIPSYNC_PORT, 8383.")] = None,
    triton: TritonOption = None,
    device: DeviceOption = None,
) -> None:
    """Serve renders over HTTP. /v2 is sync.so's API, /easy HeyGem's, POST /render one for curl, and / a page to try it."""
    # A render need not wait for the web framework to load.
    from orchestrator.main import open_listener, run_service  # noqa: PLC0415

    settings = read_settings(triton, device, host=host, port=port, is_service=True)
    with open_listener(settings) as listener, open_triton(settings) as client:
        refuse_unfit_models(client, settings)
        run_service(client, settings, listener)


def main() -> NoReturn:
    """Run the command line; a failed render is one sentence and exit status 1."""
    signal.signal(signal.SIGTERM, _terminate)
    bound_heap()
    try:
        app(standalone_mode=True)
    except RenderError as exc:
        _stderr.print(f"[bold red]{exc.code}[/]: {escape(str(exc))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except ValidationError as exc:
        if exc.title != Settings.__name__:
            raise
        wrong = "; ".join(f"LIPSYNC_{'_'.join(map(str, error['loc'])).upper()}: {complaint(error)}" for error in exc.errors())
        _stderr.print(f"[bold red]invalid_option[/]: {escape(f'A setting cannot be used: {wrong}.')}", highlight=False, soft_wrap=True)
        sys.exit(1)
    sys.exit(0)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End on SIGTERM as on Ctrl-C, so that what was started is stopped and what was half-written is removed."""
    sys.exit(128 + number)


@contextmanager
def _progress_bar() -> Iterator[OnProgress]:
    """Show the stage, its frames, speed and time left on a terminal while it lasts."""
    bar = ProgressBar(
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:>6.1f} frames/s"),
        TimeRemainingColumn(),
        console=_stderr,
        transient=True,
        disable=not _stderr.is_terminal,
    )
    task = bar.add_task("read", total=None, speed=0.0)

    def on_progress(progress: Progress) -> None:
        if bar.tasks[task].description != progress.stage:
            bar.reset(task, description=progress.stage)
        bar.update(task, completed=progress.done, total=progress.total or None, speed=progress.frames_per_s)

    with bar:
        yield on_progress


def _print_report(report: RenderReport) -> None:
    width, height = report.size_wh
    rate = f"{float(Fraction(report.frame_rate)):.6g}"
    print(f"{report.output}: {report.frame_count} frames, {width}x{height}, {rate} frames/s, {report.duration_s:.2f} s")
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.stage_s.items())
    print(f"  {stages}, {report.frames_per_s:.1f} frames/s rendered")
    for role, use in report.models.items():
        print(
            f"  {role}: {use.inference_count} inferences in {use.execution_count} batches on {', '.join(use.instance_kinds)} "
            f"(mean batch {use.mean_batch:.1f}, {use.compute_s:.1f} s)"
        )
    for note in report.notes:
        print(f"  {note}")
