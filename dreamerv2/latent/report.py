"""`report.md`, to be read from top to bottom, and `report.json`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common.files import write_json, write_text
from common.report.tables import number, percent, score, table
from dreamerv2.latent import report_game

HEAD = """# Inside the latent of {task}

The state of a DreamerV2 agent has a continuous part, the memory of its recurrent network (`deter`,
{deter} numbers), and a discrete part: {variables} variables of {classes} classes each (`stoch`),
drawn anew at every step. The model draws it twice: from the **prior**, which only knows the memory,
and from the **posterior**, which has seen the new image, too. All below is about what ends up in
the discrete part. *Published* are the findings of an evaluation of a fully discretised DreamerV2 on
Pong, whose policy, reward predictor and decoder saw the discrete part alone.

| | |
| --- | --- |
| trained | {env_frames:,} environment frames ({agent_steps:,} agent steps) |
| policy, value and decoder see | {sees} |
| played for this | {episodes} episodes, {rows:,} rows, mean return {score}{cut} |
| a row | one observation, {action_repeat} environment frames after the one before |
"""

SEES = {
    "full": "discrete and continuous part (`features: full`)",
    "discrete": "the discrete part alone (`features: discrete`)",
}

USAGE = """## Usage: which classes are ever on

The latent has {cells:,} cells: a class of a variable each. In {rows:,} rows, **{never} of the
cells were never on** in the posterior, {prior} in the prior. (Published: most of them.)

![Usage](usage.png)

Brighter cells are on more often, on a logarithmic scale; salmon ones never were. A row with
one bright cell is a variable that hardly varies. Which number a class has means nothing.

- "Never" after half as many rows: {half} of the cells. {once} cells were on exactly once; the
  more there are of these, the more would still turn up in a longer recording.
- A variable carries {bits:.2f} of at most {most:.3g} bits on average, as {effective:.1f} classes
  used evenly would.
- {likely} of the cells were never the most likely class of a posterior, whatever was drawn.
- Dead variables, that had the same class in all rows: {dead}.

![Entropy per variable](usage_variables.png)
"""

SWEEP = """## Sweep: one variable through all its classes

A real state, and one of its variables is put to each of its classes while all else stays. Done for
{states} states; the picture shows one of them and the variables that change its image most.

![Sweep](sweep.png)

Upper line of a variable: what the decoder shows. Lower line: the change against the state's own
image.

- **{invisible} of all swaps to a class in use change nothing that can be seen** (no pixel by more
  than a tenth of the range between black and white); with the classes that are never on,
  {invisible_all}. (Published: mostly nothing visible.)
- The median variable changes a pixel by {median:.3f} of 255 gray levels on average, the strongest
  (number {best}) by {largest:.3f}.
- For comparison, halves of another real state: all discrete variables at once change a pixel by
  {all_classes:.3f}, `deter` alone by {all_deter:.3f}, both by {both:.3f}. {where}
{flips}{board}
Where each variable acts (mean over states and classes in use; the number is the mean over the
image):

![Maps](sweep_maps.png)

What each variable does to image, value, predicted reward and policy:

![Effects](sweep_effects.png)
"""

FLIPS = "- {share} of the swaps to a class in use move more than half of the action probability.\n"

WHERE = {
    "full": "The larger one holds the picture.",
    "discrete": "The decoder does not see `deter`.",
}

INTERPOLATE = """## Interpolate: from one latent to another

Two real states of one episode, {variables} agent steps apart. The discrete part walks from the
first to the second, one variable at a time; `deter` stays that of the first. Orders: by number
(given), random, and greedy, which changes next what moves the image least. For contrast: mixing the
pixels of the two frames, and what happened in the game. If the latent were a smooth space, the
walks would look like what happened, rather than like a fade or a jump. (Published:
nothing meaningful in between.)

![Moving](interpolate.gif)

{strips}

**Do latents that differ more also look more different?** Over {pairs:,} pairs of real states the
rank correlation of Hamming distance and image distance is **{correlation}**; when variables of a
real state are changed at random to other classes in use, with `deter` kept, it is {changed}. 1: the
more variables differ, the more the image does; 0: no relation.

![Distances](interpolate_distance.png)

**Does the model believe in what is in between?** Each latent is given its log-probability
under the priors of {known} real states, the one that favours it most; each decoded image its
distance to the nearest of these states' images. *Implausible* is what lies below 95% of the real
latents. *Shuffled* latents take every variable from another row: what chance alone would look like.

{table}

*Between* is the inner half of the walks; numbers are medians.
{board}
![Plausibility](interpolate_plausibility.png)
"""

PROBE = """## Probe: reading the game out of the state

Where are ball and paddle, and how fast? {truth} A linear map and a network with
five hidden layers are trained to tell it from the state, and tested on other episodes
({train_rows:,} rows of {train_episodes} episodes to train, {valid_rows:,} of {valid_episodes} to
choose penalty and training time, {test_rows:,} of {test_episodes} to test). Mean absolute error in
{units}.

{table}

(Published, on Pong's screen in pixels, from the discrete latent, linear and then 5 hidden layers:
x 4.35 and 0.62, y 8.41 and 1.40, velocity x 1.40 and 0.53, velocity y 2.08 and 1.27.)

![Probe](probe.png)

A bar below the dashed line: the input tells something about the variable. Blue far below orange: it
is there, but not linearly. Few test episodes make these numbers rough. Few rows to train on make
them too large, above all those of the hidden layers: `--episodes` and `--steps` play more.
"""


TRUTHS = {
    "atari": {
        "truth": "The truth is in the console's memory.",
        "units": "pixels of the 210x160 screen; velocities in pixels per agent step. Only rows\n"
        "with a ball in play count",
    },
    "minatar": {
        "truth": "The game itself tells the truth.",
        "units": "cells of the 10x10 board; directions (-1 or 1) in cells per step, where\n"
        "predicting the mean is off by 1",
    },
}


def write(out: Path, run: Mapping, found: Mapping[str, Mapping]) -> None:
    """Writes `report.md` and `report.json` into `out`.

    run: what `HEAD` names. found: numbers by section, or `{"unavailable": reason}`.
    """
    cut = f" ({run['episodes_cut']} left before their end)" if run["episodes_cut"] else ""
    mean = score(run["mean_return"])
    head = HEAD.format(sees=SEES[run["features"]], cut=cut, score=mean, **run)
    texts = {
        "usage": usage,
        "sweep": sweep,
        "interpolate": interpolate,
        "probe": probe,
        "information": report_game.information,
        "fix": report_game.fix,
    }
    sections = [
        f"## {name.capitalize()}\n\nNot available: {numbers['unavailable']}.\n"
        if "unavailable" in numbers
        else texts[name](run, numbers)
        for name, numbers in found.items()
    ]
    write_text(out / "report.md", "\n".join([head, *sections]))
    write_json(out / "report.json", {"run": run, **found})


def usage(run: Mapping, numbers: Mapping) -> str:
    return USAGE.format(
        cells=numbers["cells"],
        rows=numbers["rows"],
        never=percent(numbers["never_used_fraction"]),
        prior=percent(numbers["never_used_fraction_prior"]),
        likely=percent(numbers["never_most_likely_fraction"]),
        half=percent(numbers["never_used_fraction_half"]),
        once=numbers["cells_used_once"],
        bits=np.mean(numbers["entropy_bits"]),
        most=np.log2(run["classes"]),
        effective=np.mean(numbers["effective_classes"]),
        dead=", ".join(map(str, numbers["dead_variables"])) or "none",
    )


def sweep(run: Mapping, numbers: Mapping) -> str:
    pixel = np.array(numbers["pixel_change"])
    change = numbers["image_change_by_half"]
    board = report_game.swept_board(numbers["board"]) if "board" in numbers else ""
    flips = numbers["policy_flips_fraction"]
    return SWEEP.format(
        board=board,
        states=numbers["states"],
        invisible=percent(numbers["invisible_fraction"]),
        invisible_all=percent(numbers["invisible_fraction_all"]),
        median=np.median(pixel),
        best=int(pixel.argmax()),
        largest=pixel.max(),
        all_classes=change["classes"],
        all_deter=change["deter"],
        both=change["both"],
        where=WHERE[run["features"]],
        flips="" if flips is None else FLIPS.format(share=percent(flips)),
    )


def interpolate(run: Mapping, numbers: Mapping) -> str:
    strips = [f"![Walk {i + 1}](interpolate_{i}.png)" for i in range(numbers["examples"])]
    names = {
        "real_own_prior": "real latents, prior of their own state",
        "real": "real latents, priors and images of other states",
        "given": "between, given order",
        "random": "between, random order",
        "greedy": "between, greedy order",
        "shuffled": "shuffled latents",
        "pixel_mix": "mix of pixels",
    }
    columns = (
        ("log_prob", number),
        ("implausible_fraction", percent),
        ("nearest_image", number),
    )
    rows = [
        [label, *(shown(numbers[column].get(key)) for column, shown in columns)]
        for key, label in names.items()
    ]
    header = ["", "log-probability [nats]", "implausible", "nearest real image [gray levels]"]
    board = report_game.walked_board(numbers["board"]) if "board" in numbers else ""
    return INTERPOLATE.format(
        board=board,
        variables=run["variables"],
        strips="\n\n".join(strips),
        pairs=numbers["pairs"],
        known=numbers["known"],
        correlation=_correlation(numbers["rank_correlation"]),
        changed=_correlation(numbers["rank_correlation_changed"]),
        table=table([header, *rows]),
    )


def probe(run: Mapping, numbers: Mapping) -> str:
    names = {
        "mean": "nothing: the mean of the training episodes",
        "discrete": "discrete part",
        "deter": "`deter`",
        "full": "both",
        "pixels": "what the agent sees",
    }
    kinds = {"linear": "linear", "mlp": "5 hidden layers", "mean": ""}
    rows = [
        [names[source], kinds[kind], *map(number, values.values())]
        for source, errors in numbers["errors"].items()
        for kind, values in errors.items()
    ]
    counts = {
        f"{split}_{what}": n for what in ("rows", "episodes") for split, n in numbers[what].items()
    }
    header = ["from", "probe", *numbers["variables"]]
    words = TRUTHS[run["task"].split("_")[0]]
    return PROBE.format(table=table([header, *rows]), **words, **counts)


def _correlation(value: float | None) -> str:
    return "undefined" if value is None else number(value)
