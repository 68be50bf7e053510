"""What the report says about the game itself: boards, what variables are about, fixed ones."""

from collections.abc import Mapping

import numpy as np

from common.report.tables import number, percent, table, with_interval
from dreamerv2.latent.board import KINDS
from dreamerv2.latent.information import TOLD

SWEPT_BOARD = """
**On the board**, an object is where more than half of one is expected. Of all swaps to a class in
use **{unchanged} change no cell**; those that do change {cells} cells on average. How often swaps
change cells of each kind:

{table}
"""

WALKED_BOARD = """
**Could the game show what is in between?** A board is allowed when there is exactly one paddle, in
the last row, exactly one ball, one trail from where the ball can have come, and bricks in their
three rows only. Every board of the game itself passes.

{table}
"""

INFORMATION = """## Information: what each variable is about

Mutual information of each variable's class with each variable of the game, as a share of what there
is to know about it, in {rows} rows. What chance alone gives ({chance:.3f} bits on average, measured
with the classes shifted in time) is taken off. A variable is *on* what it tells the largest share
of, if that is at least {told}.

![Information](information.png)

{table}
"""

FIX = """## Fix: one class through a whole game

Each variable in turn is held at the class that it has most often, for whole games: that is what the
policy sees and what the memory goes on from. {games} greedy games each, with the same seeds. The
free agent has {free} points on average (95 % intervals in brackets), and {all_fixed} with all
variables fixed at once.{cut}

![Fixed](fix.png)

{verdict} The worst:

{table}
"""

OBJECTS = {
    "real": "real states, decoded",
    "given": "between, given order",
    "random": "between, random order",
    "greedy": "between, greedy order",
    "shuffled": "shuffled latents",
}


def swept_board(numbers: Mapping) -> str:
    rows = [["changes", *KINDS]]
    shares = [percent(numbers["kinds"][kind]["fraction"]) for kind in KINDS]
    strongest = [str(int(np.argmax(numbers["kinds"][kind]["by_variable"]))) for kind in KINDS]
    rows += [["swaps that do", *shares], ["variable that does most", *strongest]]
    return SWEPT_BOARD.format(
        unchanged=percent(numbers["unchanged_fraction"]),
        cells=number(numbers["cells_changed"]),
        table=table(rows),
    )


def walked_board(numbers: Mapping) -> str:
    rows = [["", "boards", "allowed", *(f"wrong {kind}" for kind in KINDS)]]
    for name, label in OBJECTS.items():
        found = numbers[name]
        rows.append(
            [
                label,
                f"{found['boards']:,}",
                percent(found["allowed"]),
                *(percent(found[kind]) for kind in KINDS),
            ]
        )
    return WALKED_BOARD.format(table=table(rows))


def information(run: Mapping, numbers: Mapping) -> str:
    bits = np.array(numbers["bits"])
    entropy = np.array(numbers["entropy_bits"])
    rows = [
        [
            "about",
            "to know [bits]",
            "variable that tells most",
            "it tells [bits]",
            "variables on it",
        ]
    ]
    for i, name in enumerate(numbers["variables"]):
        best = int(bits[:, i].argmax())
        pairs = zip(numbers["about"], numbers["share"], strict=True)
        carriers = sum(about == name and share >= TOLD for about, share in pairs)
        told = f"{number(bits[best, i])} ({percent(bits[best, i] / max(1e-9, entropy[i]))})"
        rows.append([name, number(entropy[i]), str(best), told, str(carriers)])
    return INFORMATION.format(
        rows=f"{numbers.get('rows', run['rows']):,}",
        chance=numbers["chance_bits"],
        told=percent(TOLD),
        table=table(rows),
    )


FIX_VERDICT = """\
**{harmful} of {count} variables cost points when they are fixed**: so many losses are significant
by t-tests with Holm's correction. With nothing to find, one is in at most 5 % of reports. The
intervals of single variables are not corrected."""
FEW_GAMES = "These are too few games to say which variables cost points when they are fixed."


def tested(numbers: Mapping) -> bool:
    """Whether there were games enough for a test."""
    return None not in numbers["p_adjusted"]


def harmful(numbers: Mapping) -> int:
    """How many variables cost significantly many points when they are fixed."""
    pairs = zip(numbers["loss"], numbers["p_adjusted"], strict=True)
    return sum(loss > 0 and chance is not None and chance < 0.05 for loss, chance in pairs)


def fix(run: Mapping, numbers: Mapping) -> str:
    loss, spans = np.array(numbers["loss"]), np.array(numbers["loss_interval"])
    rows = [["variable", "held at class", "which it has anyway in", "return lost [95 %]"]]
    for variable in np.argsort(-loss)[:6]:
        span = spans[variable] if tested(numbers) else (None, None)
        rows.append(
            [
                str(variable),
                str(numbers["classes"][variable]),
                percent(numbers["usual_fraction"][variable]),
                with_interval(loss[variable], *span),
            ]
        )
    verdict = FIX_VERDICT.format(harmful=harmful(numbers), count=len(loss))
    games = numbers["games"] * (len(loss) + 2)
    cut = f"\n{numbers['games_cut']:,} of {games:,} games were left before their end."
    return FIX.format(
        games=numbers["games"],
        cut=cut if numbers["games_cut"] else "",
        free=with_interval(
            numbers["free"]["mean"],
            *(numbers["free"]["interval"] if tested(numbers) else (None, None)),
        ),
        all_fixed=number(numbers["all_fixed_mean"]),
        verdict=verdict if tested(numbers) else FEW_GAMES,
        table=table(rows),
    )
