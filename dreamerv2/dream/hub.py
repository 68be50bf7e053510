"""What all sessions share: the agent, and the two threads that work for them."""

import asyncio
import concurrent.futures
import functools
from collections.abc import Callable
from typing import Any

from dreamerv2.dream.messages import Messages
from dreamerv2.dream.world import World


class Hub:
    """The networks and the games run on one thread, one call at a time: two cores are not faster
    when several sessions fight for them, and a session needs no lock."""

    def __init__(self, world: World):
        self.world, self.messages = world, Messages(world)
        pool = concurrent.futures.ThreadPoolExecutor
        self._worker, self._encoder = pool(1, "dream"), pool(1, "clip")

    async def work(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """Runs what touches networks, games and sessions, after what was asked for before."""
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    async def encode(self, function: Callable, *args: Any) -> Any:
        """Runs what takes long and touches none of them, while the play goes on."""
        return await asyncio.get_running_loop().run_in_executor(self._encoder, function, *args)

    def close(self) -> None:
        """Ends the threads; what has not begun is dropped."""
        for pool in (self._worker, self._encoder):
            pool.shutdown(wait=False, cancel_futures=True)
