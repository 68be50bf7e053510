"""What it costs that processes of this machine share an update, as the workers of a run do."""

import contextlib
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from common.config import Config
from common.report.tables import number, table
from dreamerv2.measure.timing import machine, random_batch
from dreamerv2.run.check import check_split

TURNS = 4
UPDATES = 2  # of a turn


class Turn(NamedTuple):
    """CPU seconds of an update: of one process, and of all that share it."""

    alone: float
    shared: float

    @property
    def more(self) -> float:
        """What sharing adds, as a fraction."""
        return self.shared / self.alone - 1


def measure_sharing(config: Config, count: int, turns: int = TURNS) -> list[Turn]:
    """One process learns from the whole batch, then `count` from a share each, turn by turn.

    All of them stay, so that only the first updates compile, which are not counted.

    Raises:
        ValueError: the batch cannot be split. ConnectionError: a process has ended.
    """
    check_split(config, 1, count)
    with contextlib.ExitStack() as stack:
        alone = [stack.enter_context(_learner(config, [], 0))]
        addresses = _free_addresses(count)
        workers = [_learner(config, addresses, index) for index in range(count)]
        shared = [stack.enter_context(worker) for worker in workers]
        _answers([*alone, *shared])
        return [Turn(_cpu_seconds(alone), _cpu_seconds(shared)) for _ in range(turns)]


def report(turns: Sequence[Turn], size: str, count: int) -> str:
    """The machine and a Markdown table."""
    rows = [["CPU s per update", "1 process", f"{count} processes", "more"]]
    for index, turn in enumerate(turns, 1):
        name = f"{size}, turn {index}"
        rows.append([name, number(turn.alone), number(turn.shared), f"{turn.more:.1%}"])
    return "\n".join([machine(), "", table(rows)])


def _cpu_seconds(learners: Sequence[Connection]) -> float:
    """Of an update, in all processes together."""
    for learner in learners:
        learner.send(UPDATES)
    return sum(_answers(learners)) / UPDATES


def _answers(learners: Sequence[Connection]) -> list[float]:
    try:
        return [learner.recv() for learner in learners]
    except EOFError:
        raise ConnectionError("a process that learns has ended; see what it says") from None


def _free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]


@contextlib.contextmanager
def _learner(config: Config, addresses: Sequence[str], index: int) -> Iterator[Connection]:
    """A process that learns: worker `index` of those at `addresses`, or one for itself."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    flat = {**config.flat, "workers": bool(addresses)}
    process = context.Process(target=_learn, args=(there, flat, addresses, index), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.kill()  # TensorFlow's own end would wait for the other workers
        process.join()


def _learn(
    connection: Connection, flat: Mapping[str, Any], addresses: Sequence[str], index: int
) -> None:
    """Makes as many updates as it is told to, and answers with their CPU seconds."""
    if addresses:
        task = {"type": "worker", "index": index}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    from common.cluster import from_environment
    from dreamerv2.run.blocks import defaults
    from dreamerv2.run.environments import configured_env
    from dreamerv2.run.factory import make_agent
    from dreamerv2.run.team import make_team

    config = defaults().update(flat)
    env = configured_env(config, "train", config.seed)
    team = make_team(from_environment()) if addresses else None
    with contextlib.redirect_stdout(None):  # what each would say about itself
        agent = make_agent(config, env.obs_space, env.act_space, team)
    share = config.dataset.batch // max(1, len(addresses))
    batch = {key: value[:share] for key, value in random_batch(agent).items()}
    state, _ = agent.train(batch)
    state, _ = agent.train(batch, state)
    connection.send(0.0)
    with contextlib.suppress(EOFError):
        while updates := connection.recv():
            before = time.process_time()
            for _ in range(updates):
                state, metrics = agent.train(batch, state)
            metrics["model_loss"].numpy()
            connection.send(time.process_time() - before)
