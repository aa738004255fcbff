"""``twin``: talk to the cloud, and check files and make keys without it.

Exit codes: 0 done (for ``set``: verified), 1 refused, failed or nobody answered, 2 wrong usage or wrong files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType

from cloud.api.schema import (
    ApplyReply,
    ApplyRequest,
    File,
    HistoryReply,
    NextReply,
    NowReply,
    TwinReply,
    TwinsReply,
)
from cloud.cli import check as checking
from cloud.cli import keys as key_files
from cloud.cli import tables
from cloud.cli.client import Client, twin_path
from cloud.cli.order import place
from cloud.cli.watch import watch_twins
from wire.errors import BadData, ConfigError, Rejected, Unavailable
from wire.runtime.files import read_text

Api = Annotated[str, typer.Option("--api", envvar="TWINLINE_API", help="Address of the cloud's API.")]
TokenFile = Annotated[
    Path,
    typer.Option(
        "--token-file",
        envvar="TWINLINE_TOKEN_FILE",
        help="File with the API's token.",
        show_default="~/.config/twinline/token",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]
TwinName = Annotated[str, typer.Argument(metavar="TWIN", help="Name of the twin.")]

DEFAULT_API = "http://127.0.0.1:8080"
DEFAULT_TOKEN_FILE = Path("~/.config/twinline/token").expanduser()

app = typer.Typer(
    name="twin",
    help="Twins of real assets: what they are believed to be, with its uncertainty, and setpoints with their proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
keys = typer.Typer(help="Make keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")
out = Console(highlight=False, soft_wrap=False)


@app.command(name="list")
def list_twins(api: Api = DEFAULT_API, token_file: TokenFile = DEFAULT_TOKEN_FILE, json: Json = False) -> None:
    """List every twin with its age and quality."""
    with Client(api, token_file) as client:
        found = client.get("/v1/twins", TwinsReply)
    _show(found, json, tables.twins(found))


@app.command()
def show(
    twin: TwinName, api: Api = DEFAULT_API, token_file: TokenFile = DEFAULT_TOKEN_FILE, json: Json = False
) -> None:
    """Show what a twin is: states, channels, actuators, parameters."""
    with Client(api, token_file) as client:
        found = client.get(twin_path(twin), TwinReply)
    _show(found, json, *tables.declared(found))


@app.command()
def now(twin: TwinName, api: Api = DEFAULT_API, token_file: TokenFile = DEFAULT_TOKEN_FILE, json: Json = False) -> None:
    """Show what a twin believes now: estimate with its band, measurement, age, quality."""
    with Client(api, token_file) as client:
        found = client.get(twin_path(twin, "now"), NowReply)
    _show(found, json, tables.now(found))


@app.command()
def history(
    twin: TwinName,
    start: Annotated[str, typer.Option("--from", help="10m (ago), ISO 8601 with zone, or ns UTC.")] = "10m",
    end: Annotated[str, typer.Option("--to", help="Like --from, or now.")] = "now",
    api: Api = DEFAULT_API,
    token_file: TokenFile = DEFAULT_TOKEN_FILE,
    json: Json = False,
) -> None:
    """Show stored estimates of a time range; with --json all rows, and the readings too."""
    query = {"from": start, "to": end} | ({} if json else {"readings": "no"})
    with Client(api, token_file) as client:
        found = client.get(twin_path(twin, "history"), HistoryReply, query)
    _show(found, json, tables.history(found))


@app.command(name="next")
def forecast(
    twin: TwinName,
    ahead: Annotated[str, typer.Option("--for", help="How far ahead, such as 10m.")] = "10m",
    api: Api = DEFAULT_API,
    token_file: TokenFile = DEFAULT_TOKEN_FILE,
    json: Json = False,
) -> None:
    """Forecast a twin with its band, inputs held as they are."""
    with Client(api, token_file) as client:
        found = client.get(twin_path(twin, "next"), NextReply, {"for": ahead})
    _show(found, json, tables.forecast(found))


@app.command(name="set", context_settings={"ignore_unknown_options": True})
def set_point(
    twin: TwinName,
    actuator: Annotated[str, typer.Argument(metavar="ACTUATOR", help="Name of the actuator.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Absolute value, such as 4.5 or '4.5 V'.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the ledger.")] = "",
    key: Annotated[str | None, typer.Option("--key", help="Makes repeating this very request harmless.")] = None,
    deadline: Annotated[str, typer.Option("--deadline", help="Time within which the edge must begin.")] = "10s",
    api: Api = DEFAULT_API,
    token_file: TokenFile = DEFAULT_TOKEN_FILE,
    json: Json = False,
) -> None:
    """Set an actuator and wait for the end: exit code 0 only if the device reads back what was asked."""
    with Client(api, token_file) as client:
        found = place(
            client, twin, actuator, value, reason=reason, key=key, deadline=deadline, told=None if json else _tell
        )
    _show(found, json, tables.outcome(found))
    if found.state != "verified":
        raise typer.Exit(1)


@app.command()
def watch(
    names: Annotated[list[str] | None, typer.Argument(metavar="TWIN", help="Which twins; all if none.")] = None,
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")] = 1.0,
    api: Api = DEFAULT_API,
    token_file: TokenFile = DEFAULT_TOKEN_FILE,
) -> None:
    """Watch twins live until Ctrl-C."""
    with Client(api, token_file) as client:
        watch_twins(client, names or [], every, out)


@app.command()
def apply(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="YAML files or folders of them.")],
    api: Api = DEFAULT_API,
    token_file: TokenFile = DEFAULT_TOKEN_FILE,
    json: Json = False,
) -> None:
    """Validate and register twin types and twins: all of them or none."""
    found = [path for name in files for path in checking.files_of(name)]
    request = ApplyRequest(files=[File(file=str(path), text=read_text(path)) for path in found])
    with Client(api, token_file) as client:
        reply = client.post("/v1/apply", request, ApplyReply)
    _show(reply, json, tables.changes(reply.changes))


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="YAML files or folders of them.")],
    json: Json = False,
) -> None:
    """Check configuration files of any kind, without a server."""
    report = checking.check(files)
    _show(report, json, checking.table(report))
    if report.problems:
        raise ConfigError(problem.located for problem in report.problems)


@keys.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put them.")],
    point: Annotated[
        list[str] | None,
        typer.Option("--point", help="site/edge/device/point that the key may command; * is any. Repeatable."),
    ] = None,
) -> None:
    """Make a cloud's signing key, its API token, and the trust file for its edges."""
    for path in key_files.init(folder, point or ["*/*/*/*"]):
        out.print(str(path), soft_wrap=True)


def main() -> None:
    """The console script."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """One invocation; every expected error becomes a readable line and an exit code."""
    try:
        app(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except ConfigError as error:
        return _fail(error, 2)
    except (Rejected, BadData, Unavailable) as error:
        return _fail(error, 1)
    return 0


def _fail(error: Exception, code: int) -> int:
    Console(stderr=True, highlight=False).print(str(error), markup=False, soft_wrap=True, style="red")
    return code


def _show(found: BaseModel, json: bool, *shown: RenderableType) -> None:
    """The same facts for programs or for people."""
    if json:
        typer.echo(found.model_dump_json())
    else:
        out.print(*shown, sep="\n")


def _tell(line: object) -> None:
    out.print(line)
