"""Which section of a page of charts a metric belongs to, by its name in `metrics.jsonl`."""

import re

# The first pattern that fits the whole name decides.
GROUPS = (
    ("exploration", r"expl_.*|exploring"),
    ("return", r"(train|eval)_(return|length)"),
    ("episode", r"(sum|mean|max|success)_(train|eval)_.*|(score|unlocked)_(train|eval)"),
    ("replay", r"(train|eval)_.*(steps|episodes|bytes)"),
    ("time", r"time_.*|fps|updates(_per_second)?|hours|cpu_seconds|memory_gib"),
    ("actor", r"actor_.*|advantage_.*"),
    ("critic", r"critic.*|reward_(mean|std)|reward_normed_.*"),
    ("latent", r"kl_loss|model_kl|(prior|post)_ent|latent_.*"),
)


def metric_group(name: str) -> str:
    """One of the groups above, or `model`: the losses of what the world model predicts."""
    fits = (group for group, pattern in GROUPS if re.fullmatch(pattern, name))
    return next(fits, "model")
