"""Whole episodes from a driver, for tests."""

from common.data.driver import Driver, Policy


def finish_episodes(driver: Driver, policy: Policy, count: int) -> None:
    """Steps until `count` more episodes have ended."""
    finished = []
    driver.on_episode(finished.append)
    while len(finished) < count:
        driver(policy, steps=1)
