"""Data that several families use. A table of contents: nothing here imports torch."""

from distk.hookspecs import Register, hookimpl

DATASETS = (
    (
        "dsprites",
        "dsprites:DSprites",
        "2-D shapes by shape, scale, orientation and position: the official npz, or rendered on the device",
        "Matthey et al. 2017",
        "image factors",
    ),
    (
        "dsprites-color",
        "dsprites_color:DSpritesColor",
        "dsprites, each image in a colour of its own",
        "Burgess et al. 2018",
        "image factors",
    ),
    ("blobs", "blobs:Blobs", "a Gaussian blob on a grid of positions", "Burgess et al. 2018", "image factors"),
    (
        "digits",
        "digits:Digits",
        "1,797 handwritten digits of scikit-learn, real and always at hand",
        "Alpaydin & Kaynak 1998",
        "image labels",
    ),
    ("folder", "folder:Folder", "any folder of images: --data folder --data-dir DIR", "", "image"),
    (
        "clips",
        "clips:ClipFiles",
        "any clips: npz, folders of frames, strips, GIF, MP4: --data clips --data-dir DIR",
        "",
        "video",
    ),
    (
        "video-strips",
        "clips:VideoStrips",
        "clips as strips of frames, a folder per class: --data video-strips --data-dir DIR",
        "Tulyakov et al. 2017",
        "video labels",
    ),
    (
        "video-folder",
        "clips:VideoFolder",
        "clips as folders of frames or as movies, a folder per class, cropped and resized: --data-dir DIR",
        "",
        "video labels",
    ),
    (
        "mnist",
        "mnist_like:Mnist",
        "MNIST's file format; without files the stand-in digits28",
        "LeCun et al. 1998",
        "image labels",
    ),
    (
        "fashion-mnist",
        "mnist_like:FashionMnist",
        "MNIST's file format; ten kinds of clothes",
        "Xiao et al. 2017",
        "image labels",
    ),
    (
        "kmnist",
        "mnist_like:Kmnist",
        "MNIST's file format; ten cursive Japanese characters",
        "Clanuwat et al. 2018",
        "image labels",
    ),
    (
        "emnist",
        "mnist_like:Emnist",
        "MNIST's file format; digits and letters; emnist:letters and other parts",
        "Cohen et al. 2017",
        "image labels",
    ),
    (
        "notmnist",
        "mnist_like:NotMnist",
        "MNIST's file format; letters A to J in many typefaces",
        "Bulatov 2011",
        "image labels",
    ),
    (
        "omniglot",
        "omniglot:Omniglot",
        "characters of many alphabets, archive or folder of PNGs; without files the stand-in strokes28",
        "Lake et al. 2015",
        "image labels",
    ),
    (
        "digits28",
        "digits28:Digits28",
        "MNIST's offline stand-in: real digits of scikit-learn, enlarged and bent, 28x28",
        "",
        "image labels",
    ),
    (
        "strokes28",
        "strokes28:Strokes28",
        "offline stand-in for other characters: 200 invented ones of a few strokes, 28x28",
        "",
        "image labels",
    ),
    (
        "sprites-scenes",
        "sprites_scenes:SpritesScenes",
        "scenes of up to N coloured sprites, drawn anew for every batch on the device",
        "Nash et al. 2017",
        "image objects factors",
    ),
    (
        "svhn",
        "svhn:Svhn",
        "house numbers, cropped digits in colour, 32x32: the authors' MATLAB files",
        "Netzer et al. 2011",
        "image labels",
    ),
    (
        "styled-digits",
        "styled_digits:StyledDigits",
        "SVHN's offline stand-in: real digits of scikit-learn in colour, with neighbours and blur, 32x32",
        "",
        "image labels",
    ),
    (
        "class-pairs",
        "class_pairs:ClassPairs",
        "two labelled data sets of the same classes, drawn so that the labels agree: --primary A --secondary B",
        "",
        "image labels pairs",
    ),
    (
        "dimred",
        "dimred:Dimred",
        "vectors that are a random linear image of a few independent Gaussian factors",
        "Kageback & Mogren 2016",
        "vector",
    ),
    ("xor", "xor:Xor", "the four patterns of exclusive or", "", "vector labels"),
    (
        "deadleaves",
        "deadleaves:DeadLeaves",
        "CIFAR-10's offline stand-in: discs that hide each other, with the statistics of natural images, 32x32",
        "Lee et al. 2001",
        "image",
    ),
    (
        "cifar10",
        "cifar10:Cifar10",
        "small colour photographs of ten classes, binary version; without files the stand-in deadleaves",
        "Krizhevsky 2009",
        "image labels",
    ),
    (
        "sprites",
        "sprites:Sprites",
        "672 game characters of seven attributes in many poses, MATLAB files; without files the stand-in puppets",
        "Reed et al. 2015",
        "image labels factors",
        ("reed-sprites",),
    ),
    (
        "puppets",
        "puppets:Puppets",
        "offline stand-in for the sprites: 672 drawn characters of seven attributes in many poses, 60x60",
        "",
        "image labels factors",
    ),
    (
        "shapes2d",
        "shapes2d:Shapes2D",
        "squares, ellipses and triangles by position, scale and rotation; --renderer analytic or pillow",
        "Peychev et al. 2017",
        "image factors",
    ),
    (
        "digits-aug",
        "digits_aug:DigitsAug",
        "scikit-learn's digits bent at random, 20 copies of each, 28x28, split by their source",
        "",
        "image labels",
    ),
    (
        "reid",
        "reid:Reid",
        "pictures of persons with identities, from an npz of the user's own (CUHK03, Market-1501)",
        "Ridgeway & Mozer 2017",
        "image labels",
    ),
)
"""Name, path, summary, citation, tags, and other names of each."""


@hookimpl
def distk_register_datasets(register: Register) -> None:
    for name, path, summary, paper, tags, *aliases in DATASETS:
        register(name, f"{__name__}.{path}", summary, paper=paper, tags=tuple(tags.split()), aliases=tuple(*aliases))
