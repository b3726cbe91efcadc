"""`distk filters`."""

from pathlib import Path
from typing import Annotated

import typer

from distk.commands.shared import Checkpoint, Json


def filters(
    checkpoint: Checkpoint = None,
    columns: Annotated[int, typer.Option(help="Filters in a row of the picture.", min=1)] = 4,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("filters.png"),
    json: Json = False,
) -> None:
    """Draw what each code of a tied-linear model looks for.

    Example: distk filters runs/my-run --columns 3
    """
    import distk
    from distk import console, images

    model = distk.load(checkpoint)
    if not hasattr(model, "weight"):
        raise distk.UsageError(
            f"method {type(model).__name__} has no filters; train one with `distk train tied-linear`."
        )
    weight = model.weight.detach().view(-1, *model.spec.shape)
    low, high = weight.min(), weight.max()
    images.save_png(out, images.grid(images.enlarge((weight - low) / (high - low).clamp_min(1e-9)), columns))
    norms = {f"z{i + 1}": float(row.norm()) for i, row in enumerate(weight)}
    if json:
        console.emit_json({"file": str(out), "columns": columns, "norms": norms})
    else:
        console.table("", ("code", "norm"), list(norms.items()))
        console.out.print(str(out))
