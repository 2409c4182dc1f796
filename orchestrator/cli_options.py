"""Options that several commands share, the settings they change, and the flags of a render's options."""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from orchestrator.errors import InvalidOption, complaint
from orchestrator.logs import set_up_logging
from orchestrator.pipeline.options import RenderOptions
from orchestrator.settings import Device, Settings, warn_of_what_is_left_out

TritonOption = Annotated[
    str | None, typer.Option("--triton", metavar="HOST:PORT", help="gRPC address of a Triton that runs; default: the embedded one.")
]
DeviceOption = Annotated[
    Device | None,
    typer.Option("--device", help="Where models have to run; `auto` takes the CPU only where nothing shows an NVIDIA GPU. Never falls back."),
]


def read_settings(
    triton: str | None = None, device: Device | None = None, *, host: str | None = None, port: int | None = None, is_service: bool = False
) -> Settings:
    """Return the settings of the environment, with what the command line says in their place; variables that are left out are warned of.

    `is_service` has everything logged, as the settings say, from here on.
    """
    options = {"triton": triton, "device": device, "host": host, "port": port}
    given: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, "")}
    settings = Settings(**given)
    if is_service:
        set_up_logging(settings.log_format)
    warn_of_what_is_left_out(settings)
    return settings


_PLAIN = (bool, int, float, str)


def with_render_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each field of `RenderOptions`, and what they say as its argument `options`.

    The flags follow from the fields, so that an option of the HTTP interfaces is also one of the command line. A field that is not a plain
    value is given as JSON.
    """
    signature = inspect.signature(command, eval_str=True)
    flags = {name: _flag(name, field) for name, field in RenderOptions.model_fields.items()}

    @wraps(command)
    def with_options(**given: Any) -> None:
        chosen = {name: value for name in flags if (value := given.pop(name)) is not None}
        try:
            options = RenderOptions.model_validate(chosen)
        except ValidationError as exc:
            wrong = "; ".join(f"{_place(error['loc'])}: {complaint(error)}" for error in exc.errors() if error["loc"])
            raise InvalidOption(f"{wrong or exc}.") from exc
        command(**given, options=options)

    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, parameter in signature.parameters.items() if name != "options"]
    parameters = [*own, *flags.values()]
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return with_options


def _place(loc: Sequence[int | str]) -> str:
    """Return the flag that a field is given by, and where in its value something is."""
    flag, *inside = map(str, loc)
    return ": ".join([f"--{flag.replace('_', '-')}", *([".".join(inside)] if inside else [])])


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return an option that is None where it is not given."""
    given = [kind for kind in get_args(field.annotation) if kind is not type(None)] if type(None) in get_args(field.annotation) else []
    kind = given[0] if len(given) == 1 else field.annotation
    dashed = f"--{name.replace('_', '-')}"
    names = f"{dashed}/--no-{dashed[2:]}" if kind is bool and field.default is not False else dashed
    literals = get_args(kind) if all(isinstance(value, str) for value in get_args(kind)) else ()
    shown = None if field.default is None or kind is bool else str(field.default)
    option = typer.Option(names, help=field.description, show_default=shown or False, metavar=f"<{'|'.join(literals)}>" if literals else None)
    given_as: Any = kind if kind in _PLAIN else str
    annotation = Annotated[given_as | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
