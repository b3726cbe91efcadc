"""The generic commands, one file each, registered through the same hook that plugins use."""

from distk.hookspecs import Register, RegisterCommand, hookimpl

_COMMANDS = (
    ("train", "train:app", "Train a method into a run folder."),
    ("resume", "train:resume", "Continue a run that was stopped or killed, as if it had never been."),
    ("eval", "evaluate:command", "Measure a trained model, or anybody's codes, with one pass of encoding."),
    ("traverse", "traverse:traverse", "Draw what each latent does: a row per latent, a block per class."),
    ("reconstruct", "reconstruct:command", "Draw items above what the model makes of them."),
    ("sample", "sample:sample", "Draw new items from the model."),
    ("swap", "swap:swap", "Exchange one group of the code between two items."),
    ("embed", "embed:embed", "Embed a data set: codes, classes, labels and factors of its items."),
    ("tuning", "tuning:tuning", "Draw each latent's mean over a grid of two factors."),
    ("covmap", "covmap:covmap", "Draw the covariance and correlation of a code's units."),
    ("transfer", "transfer:command", "Show items under another class; rewrite sentences with another label."),
    ("interpolate", "interpolate:interpolate", "Draw items on the way between two codes."),
    ("predict", "predict:command", "Draw how a model continues clips; what a policy's effect will be."),
    ("info", "info:info", "Show what a checkpoint holds: method, settings, data, latents, size."),
    ("list", "listing:list_", "List methods, data sets, metrics, penalties, studies and engines."),
    ("data", "data:app", "Look into a data set: what it holds, a picture."),
    ("runs", "runs:runs", "List runs below a folder: method, data, seed, step, state, scores."),
    ("compare", "compare:compare", "Hold runs against each other: settings, scores with intervals, curves."),
    ("report", "report:report", "Write runs and studies as one HTML page, or as Markdown or LaTeX tables."),
    ("figure", "figure:figure", "Draw a run's scores in one picture; of several runs, which scores agree."),
    ("explore", "explore:explore", "Look into a model in the browser: move latents, swap, rewrite."),
    ("export", "export:export", "Write encoder and decoder as ONNX, TorchScript or torch.export."),
    ("study", "", "Many runs from one recipe: scores, published figures, claims."),
    ("plugins", "listing:plugins", "List the plugins that were found, and what they bring."),
    ("check", "check:check", "Run the conformance checks on methods, data sets, metrics, penalties."),
    ("new-plugin", "new_plugin:new_plugin", "Write a plugin of its own distribution, with its tests."),
)

_STUDY = (
    ("list", "listing:studies", "List the studies of all plugins."),
    ("show", "study:show", "Show what a study would run, and in what its variants differ; nothing is trained."),
    ("run", "study:run", "Run a study, or go on with one: train, score, compare with what was published."),
    ("status", "study:status", "Show how far the runs of a study are: queued, running, done, failed and why."),
    ("cancel", "study:cancel", "Stop the runs of a study, from any machine that sees its folder."),
    ("logs", "study:logs", "Show what the jobs of one run said."),
    ("report", "study:report", "Show a study's results again, and draw its figures anew."),
)


@hookimpl
def distk_register_commands(register: RegisterCommand) -> None:
    for name, path, summary in _COMMANDS:
        register(name, f"{__name__}.{path}" if path else "", summary)
    for name, function, summary in _STUDY:
        register(name, f"{__name__}.{function}", summary, group="study")


@hookimpl
def distk_register_engines(register: Register) -> None:
    register("local", "distk.study.local:Local", "processes on the cores and GPUs of this machine")
