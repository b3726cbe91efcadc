"""Data that several families use. A table of contents: nothing here imports torch."""

from distk.hookspecs import Register, hookimpl

_AT = "distk.plugins.datasets."


@hookimpl
def distk_register_datasets(register: Register) -> None:
    register(
        "dsprites",
        _AT + "dsprites:DSprites",
        "2-D shapes by shape, scale, orientation and position: the official npz, or rendered on the device",
        paper="Matthey et al. 2017",
        tags=("image", "factors"),
    )
    register(
        "digits",
        _AT + "digits:Digits",
        "1,797 handwritten digits of scikit-learn, real and always at hand",
        paper="Alpaydin & Kaynak 1998",
        tags=("image", "labels"),
    )
    register("folder", _AT + "folder:Folder", "any folder of images: --data folder --data-dir DIR", tags=("image",))
