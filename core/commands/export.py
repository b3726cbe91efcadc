"""`distk export`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from distk import console
from distk.commands.arguments import Seed
from distk.commands.shared import OnModel
from distk.errors import DistkError, UsageError
from distk.export.formats import FORMATS
from distk.export.making import CLOSE
from distk.export.making import export as made_of
from distk.export.parts import What
from distk.files import write_atomic
from distk.method import can
from distk.options import Without


def export(
    on: Annotated[OnModel, Without("device")],
    form: Annotated[
        Literal["onnx", "torchscript", "torch.export"],
        typer.Option("--format", help="onnx, torchscript or torch.export."),
    ] = "onnx",
    what: Annotated[
        Literal["encoder", "decoder", "both"], typer.Option(help="Which half; both: those that the model has.")
    ] = "both",
    batch: Annotated[
        int | None, typer.Option(help="The only batch size that the file takes; default: any.", min=1, max=65536)
    ] = None,
    seed: Seed = 0,
) -> None:
    """Write encoder and decoder as files that run without distk: ONNX, TorchScript, or torch.export.

    The encoder goes from items to the groups of the code, the decoder from all groups, noise too, to items. Each file
    is run on random inputs and written only if it gives what the model gives; of ONNX, onnxruntime runs it.

    Example: distk export runs/my-run --format torch.export --what decoder
    """
    on.open()
    model, name = on.model.to("cpu"), on.header.method
    halves: list[What] = ["encoder", "decoder"] if what == "both" else [what]
    if what == "both":
        halves = [half for half in halves if can(model, "encode" if half == "encoder" else "decode")]
        if not halves:
            raise UsageError(f"method '{name}' has neither encoder nor decoder.")
        if len(halves) == 2 and on.out is not None and not on.out.is_dir():
            raise UsageError(f"--out '{on.out}' is one file, and there are two to write: name a folder, or say --what.")
    targets = {half: on.target(f"{half}{FORMATS[form].suffix}") for half in halves}
    files, told, failed = [], dict[str, Any](), list[DistkError]()
    for half, target in targets.items():
        try:
            made = made_of(model, on.header, half, form, batch, seed)
        except DistkError as error:
            failed.append(error)
            continue
        write_atomic(target, made.content)
        files.append(target)
        told[half] = {"inputs": made.inputs, "outputs": made.outputs, "difference": made.difference}
        tried = ", ".join(map(str, made.batches))
        console.note(
            f"{half}: at most {made.difference:.1e} from the model in batches of {tried} "
            f"(up to {CLOSE:g} counts as equal)"
        )
    if not files:
        raise failed[0]
    for failure in failed:
        console.warn(str(failure))
    on.report(files, format=form, failed=list(map(str, failed)), **told)
