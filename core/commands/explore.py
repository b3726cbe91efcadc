"""`distk explore`."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from distk import console
from distk.commands.arguments import Start
from distk.commands.shared import OnRows
from distk.errors import NotServed, UsageError
from distk.explore.looking import Explorer, unfit
from distk.explore.server import EVERYWHERE, Server, needs
from distk.options import Without
from distk.traversal import Known, known_of


def explore(
    on: Annotated[OnRows, Without("out")],
    n: Annotated[int, typer.Option("--n", "-n", help="Items of the data that can be chosen.", min=1, max=200)] = 24,
    start: Start = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than 127.0.0.1 lets others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 0,
    browse: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in your browser.")] = False,
    idle: Annotated[
        float | None, typer.Option(help="End after so many minutes in which nobody asked; default: never.", min=0)
    ] = None,
) -> None:
    """Look into a model in the browser: a slider per latent, class buttons, two items to swap between, sentences.

    Prints the page's address and answers until Ctrl-C. It listens on 127.0.0.1, and only who knows the address can use
    it. What is read is the checkpoint and, unless --start prior, some items of its data, all before it answers.

    Example: distk explore runs/my-run --idle 60
    """
    needs("distk explore")
    model = on.open().model
    if reason := unfit(model, on.header):
        raise NotServed(reason)
    items, rows, known = None, list[int](), Known()
    notes: tuple[str, ...] = ()
    if on.starts_at_data(start, "explore"):
        try:
            dataset = on.dataset()
            chosen = on.rows(dataset, min(n, len(dataset)))
            items, rows, known = dataset.items(chosen), chosen.tolist(), known_of(model, dataset, seed=on.seed)
        except UsageError as error:
            if start == "data" or on.data is not None or on.data_dir is not None:
                raise
            notes = (f"There are no items to start from: {error}",)
            console.warn(notes[0])
    explorer = Explorer(model, on.header, items, rows, known, notes)
    server = Server(explorer, host, port, None if idle is None else 60 * idle)
    if host in EVERYWHERE:
        console.warn("everybody who reaches this machine and knows the address can use the page; it is not encrypted")
    try:
        if on.json:
            console.emit_json({"url": server.url, "host": host, "port": server.port})
        else:
            console.say(server.url)
            console.note("open it in a browser; Ctrl-C ends it")
        if browse:
            webbrowser.open(server.url)
        server.serve()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    console.note("stopped")
