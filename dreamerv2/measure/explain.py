"""What the actor's loss is made of: three terms, for every run that has logged enough.

    loss  =  H mean(A)  -  cov(log π(a), A)  -  η H

H is the policy's entropy, A the advantage, η the weight of the entropy bonus (docs/results.md).
"""

from collections.abc import Mapping

from common.log.metrics import Row

METRIC = "actor_loss"
# By the name of their metric: what they are called in a figure.
TERMS = {
    "actor_loss_advantage": "entropy x mean advantage",
    "actor_loss_covariance": "-covariance of log-probability and advantage",
    "actor_loss_entropy": "-entropy bonus",
}
_NEEDED = (METRIC, "actor_ent", "actor_ent_scale", "advantage_mean")


def with_terms(rows: list[Row]) -> list[Row]:
    """The rows, with the terms in all that have the loss.

    Runs that did not log them get what follows from entropy and mean advantage when all imagined
    steps have the weight 1; the covariance is then what the other two leave.

    Raises:
        ValueError: a metric that this takes was not logged either.
    """
    found = [row | terms(row) if row.get(METRIC) is not None else row for row in rows]
    if not any(set(TERMS) <= row.keys() for row in found):
        logged = {name for row in rows for name, value in row.items() if value is not None}
        missing = [name for name in _NEEDED if name not in logged]
        raise ValueError(f"--explain: the run has logged no {', '.join(missing) or 'such row'}")
    return found


def terms(row: Mapping[str, float | None]) -> dict[str, float | None]:
    """The terms of one row of metrics; empty where they cannot be told."""
    if set(TERMS) <= row.keys():
        return {name: row[name] for name in TERMS}
    loss, entropy, scale, advantage = (row.get(name) for name in _NEEDED)
    if loss is None or entropy is None or scale is None or advantage is None:
        return {}
    first, last = entropy * advantage, -scale * entropy
    return dict(zip(TERMS, (first, loss - first - last, last), strict=True))
