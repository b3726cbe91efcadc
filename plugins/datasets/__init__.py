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
    idx = "MNIST's file format; "
    register(
        "mnist",
        _AT + "mnist_like:Mnist",
        idx + "without files the stand-in digits28",
        paper="LeCun et al. 1998",
        tags=("image", "labels"),
    )
    register(
        "fashion-mnist",
        _AT + "mnist_like:FashionMnist",
        idx + "ten kinds of clothes",
        paper="Xiao et al. 2017",
        tags=("image", "labels"),
    )
    register(
        "kmnist",
        _AT + "mnist_like:Kmnist",
        idx + "ten cursive Japanese characters",
        paper="Clanuwat et al. 2018",
        tags=("image", "labels"),
    )
    register(
        "emnist",
        _AT + "mnist_like:Emnist",
        idx + "digits and letters; emnist:letters and other parts",
        paper="Cohen et al. 2017",
        tags=("image", "labels"),
    )
    register(
        "notmnist",
        _AT + "mnist_like:NotMnist",
        idx + "letters A to J in many typefaces",
        paper="Bulatov 2011",
        tags=("image", "labels"),
    )
    register(
        "omniglot",
        _AT + "omniglot:Omniglot",
        "characters of many alphabets, archive or folder of PNGs; without files the stand-in strokes28",
        paper="Lake et al. 2015",
        tags=("image", "labels"),
    )
    register(
        "digits28",
        _AT + "digits28:Digits28",
        "MNIST's offline stand-in: real digits of scikit-learn, enlarged and bent, 28x28",
        tags=("image", "labels"),
    )
    register(
        "strokes28",
        _AT + "strokes28:Strokes28",
        "offline stand-in for other characters: 200 invented ones of a few strokes, 28x28",
        tags=("image", "labels"),
    )
