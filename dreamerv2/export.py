"""Make a trained agent small enough to give away: `python -m dreamerv2.export --logdir DIR`.

Writes `NAME.npz`, the weights that acting and dreaming need, and `NAME.md`, a card that says what
the agent is, how it was trained and what it reaches. Commands that play take the file for
`--logdir`, and in `videos/agents/` its name alone.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from common.commands import MISTAKES, Parser, file_path, one_line_errors
from common.files import write_text
from common.log.metrics import read_metrics


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        from dreamerv2.run import restore, shipped

        saved = restore.read(args.logdir, args.checkpoint)
        if saved.meta.get("acting_only"):
            raise ValueError(f"--logdir: {args.logdir} is such an agent already")
        run = {"note": args.note, **cpu_seconds(args.logdir, saved.env_frames)}
        meta = {**saved.meta, "config": saved.config.nested()}  # an older one lacks keys
        card = make_card(args.out, meta, run, args.evaluation)
        shipped.write(args.out, saved.variables, saved.meta, args.half)
        write_text(args.out.with_suffix(".md"), card)
    size = args.out.stat().st_size / 2**20
    print(f"Written: {args.out} ({size:.1f} MiB) and {args.out.with_suffix('.md')}")
    return 0


def make_card(path: Path, meta: dict, run: dict, evaluation: Path | None) -> str:
    """The card of the agent in `path`; ValueError when the evaluation's file is something else."""
    from dreamerv2.run import shipped

    if evaluation is None:
        return shipped.card(path, meta, run, {})
    try:
        found = json.loads(evaluation.read_text())
        if not set(found) & {"greedy", "sampled", "random"}:
            raise TypeError(found)
        card = shipped.card(path, meta, run, found)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"--evaluation {evaluation}: expected what `evaluate --json` wrote"
        ) from error
    for key, ours in (("task", meta["config"]["task"]), ("agent_steps", meta["agent_steps"])):
        if found.get(key, ours) != ours:
            raise ValueError(
                f"--evaluation {evaluation}: its {key} is {found[key]}, that of this agent {ours}"
            )
    return card


def cpu_seconds(logdir: Path, env_frames: int) -> dict[str, float]:
    """The last `cpu_seconds` in the run's metrics until env frame `env_frames`; empty if none were
    logged."""
    rows = [row for row in read_metrics(logdir / "metrics.jsonl") if row["step"] <= env_frames]
    found = [row["cpu_seconds"] for row in rows if row.get("cpu_seconds") is not None]
    return {"cpu_seconds": found[-1]} if found else {}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("export", "Write a trained agent as one small file with a card.")
    parser.add_argument("--out", type=file_path, required=True, metavar="NAME.npz", help="where to")
    parser.add_argument("--half", action="store_true", help="float16 weights: half the size")
    parser.add_argument(
        "--evaluation",
        type=file_path,
        metavar="JSON",
        help="what `evaluate --json` wrote, for the card",
    )
    parser.add_argument("--note", default="", help="for the card: what the agent cannot do")
    args = parser.parse_args(argv)
    card = args.out.with_suffix(".md")
    if card.exists() and not args.out.exists():
        raise ValueError(f"--out: {card}, where the card goes, is there already")
    if args.out.suffix != ".npz":
        raise ValueError(f"--out: got {args.out}, expected a name that ends in .npz")
    if not args.out.parent.is_dir():
        raise ValueError(f"--out: there is no directory {args.out.parent}")
    return args


if __name__ == "__main__":
    sys.exit(main())
