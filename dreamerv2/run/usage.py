"""What `--help` of train says, and hints for those who know other libraries' names."""

import pydoc
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from common.config import Config

WIDTH = 80  # columns

# Names of other libraries, and what they are called here.
ALIASES = {
    "actor_lr": "actor_opt.lr",
    "batch_length": "dataset.length",
    "batch_size": "dataset.batch",
    "buffer_size": "replay.capacity",
    "config": "configs",
    "critic_lr": "critic_opt.lr",
    "ent_coef": "actor_ent",
    "entropy_coef": "actor_ent",
    "env_id": "task",
    "env_name": "task",
    "eval_freq": "eval_every",
    "frame_skip": "action_repeat",
    "frame_stack": "task; the model has a memory, so frames are not stacked",
    "gae_lambda": "discount_lambda",
    "game": "task",
    "gamma": "discount",
    "grad_clip": "model_opt.clip",
    "hidden_size": "rssm.hidden",
    "horizon": "imag_horizon",
    "image_size": "render_size",
    "lambda": "discount_lambda",
    "learning_rate": "model_opt.lr, actor_opt.lr or critic_opt.lr",
    "learning_starts": "prefill",
    "log_dir": "logdir",
    "lr": "model_opt.lr, actor_opt.lr or critic_opt.lr",
    "max_grad_norm": "model_opt.clip",
    "max_steps": "steps",
    "num_steps": "steps",
    "output_dir": "logdir",
    "random_seed": "seed",
    "replay_size": "replay.capacity",
    "save_freq": "save_every",
    "seq_len": "dataset.length",
    "sequence_length": "dataset.length",
    "target_update_interval": "slow_target_update",
    "tau": "slow_target_fraction",
    "total_timesteps": "steps",
    "train_freq": "train_every",
    "train_ratio": "train_every",
    "weight_decay": "model_opt.wd",
}


def alias(name: str) -> str | None:
    """What another library's `name` is called here, or None."""
    return ALIASES.get(name.replace("-", "_").lower())


def show(text: str) -> None:
    """Prints it, page by page where it goes to a terminal that is too small for it."""
    lines = text.count("\n")
    if sys.stdout.isatty() and lines >= shutil.get_terminal_size().lines:
        pydoc.pager(text)
    else:
        sys.stdout.write(text)


def help_text(command: str, config: Config, blocks: Sequence[str], directory: Path) -> str:
    """Usage, a line per block, and every key by section: value, meaning, what is accepted.

    config: of the blocks that are used by default, whose names are `blocks`. directory: where the
    YAML files of the blocks are.
    """
    head = [
        f"usage: python -m dreamerv2.{command} --logdir DIR",
        "         [--configs BLOCK ...] [--KEY VALUE ...]",
        "",
        *_filled(
            "Trains in DIR; the same command again goes on. First the blocks are applied, in the "
            "order given, then the keys. Without --configs a run that is in DIR keeps its values; "
            f"a new one has those of the block {' '.join(blocks)}, which are shown below.",
        ),
        "",
        r"KEY may be a pattern, as in --'.*\.units' 64. A list is written --KEY 1 2 3.",
        "A value [in brackets after its meaning] has that unit.",
        "(ours): not in the author's release 2.2.0; all other keys are as there.",
        "",
        "Blocks",
    ]
    summaries = block_summaries(directory)
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        head += _filled(f"{name:{width}}  {summary}", 2, 4 + width)
    meanings, sections = key_meanings(directory), key_sections(directory)
    section = ""
    for key, value in config.flat.items():
        found = sections[key.partition(".")[0]]
        if found != section:
            section = found
            head += ["", section]
        value = list(value) if isinstance(value, tuple) else value
        head.append(f"  --{key} {'' if value == '' else value}".rstrip())
        head += _filled(f"{meanings[key]} ({config.kind(key).expected})", 6, 6)
    return "\n".join(head) + "\n"


def _filled(text: str, first: int = 0, rest: int = 0) -> list[str]:
    """Lines of at most `WIDTH` columns, indented."""
    wrapper = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
    wrapper.initial_indent, wrapper.subsequent_indent = " " * first, " " * rest
    return wrapper.wrap(text)


def block_summaries(directory: Path) -> dict[str, str]:
    """Block -> the first sentence of the comment at the head of its file; without `defaults`."""
    summaries = {}
    for path in sorted(directory.glob("*.yaml")):
        if path.stem != "defaults":
            comment = re.match(r"(#[^\n]*\n)+", path.read_text(encoding="utf-8"))
            words = re.sub(r"\n?# ?", " ", comment[0]) if comment else ""
            sentence = re.split(r"\. |: |; |\.$", " ".join(words.split()))[0]
            summaries[path.stem] = sentence.replace(", on top of the defaults alone", "")
    return summaries


def key_sections(directory: Path) -> dict[str, str]:
    """First part of a key -> the heading above it in the block `defaults`."""
    sections, heading, before = {}, "", ""
    for line in (directory / "defaults.yaml").read_text(encoding="utf-8").splitlines():
        if not before and (match := re.fullmatch(r"# ([A-Z][\w ]*)", line)):
            heading = match[1]
        elif match := re.match(r"(\w+):", line):
            sections[match[1]] = heading
        before = line
    return sections


def key_meanings(directory: Path) -> dict[str, str]:
    """Dotted key -> the comment at the end of its line in the block `defaults`, without bounds."""

    def collect(section, prefix):
        for name, value in section.items():
            if isinstance(value, dict):
                collect(value, f"{prefix}{name}.")
                continue
            tokens = section.ca.items.get(name)
            comment = tokens[2].value if tokens else ""
            meanings[prefix + name] = re.sub(
                r" *\{.*\}$", "", comment.partition("\n")[0].lstrip("# ")
            )

    meanings: dict[str, str] = {}
    collect(YAML().load(directory / "defaults.yaml"), "")
    return meanings
