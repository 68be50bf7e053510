"""How many agent steps per second an agent plays, by the number of environments at once."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import write_json
from common.report.tables import number, table
from common.seeds import derive_seed
from dreamerv2.measure.apart import apart
from dreamerv2.measure.timing import Job, machine

WARM_UP = 20  # agent steps of each environment, the policy's compilation among them
SECONDS = 12.0  # of one measurement


def measure_rates(
    jobs: Sequence[Job], counts: Sequence[int], path: Path | None = None
) -> list[dict[str, Any]]:
    """Agent steps per second of every job, policy included, without updates.

    Each figure is measured in a process of its own, which may have processes of its own for the
    environments. path: gets the results so far as JSON.

    Returns:
        A dict per job: `size`, `precision`, and `steps_per_second` by number of environments.
    """
    results = []
    for job in jobs:
        rates: dict[int, float] = {}
        results.append({"size": job.size, "precision": job.precision, "steps_per_second": rates})
        for count in counts:
            what = f"{job.size}, precision {job.precision}, {count} at once"
            print(f"{what} ...", flush=True)
            rates[count] = apart(what, steps_per_second, job.config.flat, count, SECONDS)
            if path:
                write_json(path, {"machine": machine(), "results": results})
    return results


def steps_per_second(flat: Mapping[str, Any], count: int, seconds: float) -> float:
    """Agent steps per second of `count` environments, which the policy plays together."""
    from common.data.driver import Driver
    from dreamerv2.run.blocks import defaults
    from dreamerv2.run.environments import configured_envs
    from dreamerv2.run.factory import make_agent

    config = defaults().update({**flat, "envs": count})
    envs = configured_envs(
        config, "train", [derive_seed(config.seed, "env", i) for i in range(count)]
    )
    try:
        agent = make_agent(config, envs[0].obs_space, envs[0].act_space)
        driver = Driver(envs)

        def policy(obs, state):
            outputs, state = agent.policy(obs, state, "train")
            return outputs["action"].numpy(), state

        driver(policy, WARM_UP * count)
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            driver(policy, count)
            steps += count
        return steps / (time.perf_counter() - start)
    finally:
        for env in envs:
            env.close()


def report(results: Sequence[Mapping[str, Any]]) -> str:
    """The machine and a Markdown table: a row per job, a column per number of environments."""
    counts = results[0]["steps_per_second"]
    rows = [["agent steps/s, policy included", *(f"N = {count}" for count in counts)]]
    for result in results:
        name = f"{result['size']}, precision {result['precision']}"
        rows.append([name, *map(number, result["steps_per_second"].values())])
    return "\n".join([machine(), "", table(rows)])
