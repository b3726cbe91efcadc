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
        "dsprites-color",
        _AT + "dsprites_color:DSpritesColor",
        "dsprites, each image in a colour of its own",
        paper="Burgess et al. 2018",
        tags=("image", "factors"),
    )
    register(
        "blobs",
        _AT + "blobs:Blobs",
        "a Gaussian blob on a grid of positions",
        paper="Burgess et al. 2018",
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
    register(
        "clips",
        _AT + "clips:ClipFiles",
        "any clips: npz, folders of frames, strips, GIF, MP4: --data clips --data-dir DIR",
        tags=("video",),
    )
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
    register(
        "sprites-scenes",
        _AT + "sprites_scenes:SpritesScenes",
        "scenes of up to N coloured sprites, drawn anew for every batch on the device",
        paper="Nash et al. 2017",
        tags=("image", "objects", "factors"),
    )
    register(
        "svhn",
        _AT + "svhn:Svhn",
        "house numbers, cropped digits in colour, 32x32: the authors' MATLAB files",
        paper="Netzer et al. 2011",
        tags=("image", "labels"),
    )
    register(
        "styled-digits",
        _AT + "styled_digits:StyledDigits",
        "SVHN's offline stand-in: real digits of scikit-learn in colour, with neighbours and blur, 32x32",
        tags=("image", "labels"),
    )
    register(
        "class-pairs",
        _AT + "class_pairs:ClassPairs",
        "two labelled data sets of the same classes, drawn so that the labels agree: --primary A --secondary B",
        tags=("image", "labels", "pairs"),
    )
    register(
        "dimred",
        _AT + "dimred:Dimred",
        "vectors that are a random linear image of a few independent Gaussian factors",
        paper="Kageback & Mogren 2016",
        tags=("vector",),
    )
    register("xor", _AT + "xor:Xor", "the four patterns of exclusive or", tags=("vector", "labels"))
    register(
        "deadleaves",
        _AT + "deadleaves:DeadLeaves",
        "CIFAR-10's offline stand-in: discs that hide each other, with the statistics of natural images, 32x32",
        paper="Lee et al. 2001",
        tags=("image",),
    )
    register(
        "cifar10",
        _AT + "cifar10:Cifar10",
        "small colour photographs of ten classes, binary version; without files the stand-in deadleaves",
        paper="Krizhevsky 2009",
        tags=("image", "labels"),
    )
    register(
        "sprites",
        _AT + "sprites:Sprites",
        "672 game characters of seven attributes in many poses, MATLAB files; without files the stand-in puppets",
        paper="Reed et al. 2015",
        tags=("image", "labels", "factors"),
        aliases=("reed-sprites",),
    )
    register(
        "puppets",
        _AT + "puppets:Puppets",
        "offline stand-in for the sprites: 672 drawn characters of seven attributes in many poses, 60x60",
        tags=("image", "labels", "factors"),
    )
    register(
        "shapes2d",
        _AT + "shapes2d:Shapes2D",
        "squares, ellipses and triangles by position, scale and rotation; --renderer analytic or pillow",
        paper="Peychev et al. 2017",
        tags=("image", "factors"),
    )
    register(
        "digits-aug",
        _AT + "digits_aug:DigitsAug",
        "scikit-learn's digits bent at random, 20 copies of each, 28x28, split by their source",
        tags=("image", "labels"),
    )
    register(
        "reid",
        _AT + "reid:Reid",
        "pictures of persons with identities, from an npz of the user's own (CUHK03, Market-1501)",
        paper="Ridgeway & Mozer 2017",
        tags=("image", "labels"),
    )
