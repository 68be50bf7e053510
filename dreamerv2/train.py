"""Train an agent: `python -m dreamerv2.train --logdir DIR [--configs NAME ...] [--KEY VALUE ...]`.

The same command again resumes the run in DIR. Exit codes: 0 when `--steps` are done, 1 when the run
broke (a number that is not finite, an exception of the environment, a full disk), 2 for a mistake
in what was asked for, 128 + number of the signal (130 for Ctrl-C) when it was stopped, which saves
first.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from common.cluster import WorkerLostError
from common.commands import MISTAKES, one_line_errors, settle_stdout
from dreamerv2.run import blocks, finish


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    with one_line_errors(*MISTAKES):
        config = blocks.parse_args(argv).config
        done = finish.finished(config)
        if done:
            print(done)
            return 0
        from dreamerv2.page.html import write_at_end
        from dreamerv2.run.environments import configured_envs
        from dreamerv2.run.errors import RunBrokenError, RunError
        from dreamerv2.run.factory import make_runner

        runner = make_runner(config, lambda mode, seeds: configured_envs(config, mode, seeds))
    with one_line_errors(RunError, OSError):
        try:
            code = runner.run()
            if code == 0 and runner.leads:
                write_at_end(Path(config.logdir).expanduser())
            return code
        except RunBrokenError as error:
            sys.stderr.write(f"error: {error}\n")
            if isinstance(error.__cause__, WorkerLostError):
                leave(1)
            return 1
        finally:
            settle_stdout()


def leave(code: int) -> NoReturn:
    """Ends the process as it is: TensorFlow's own end would wait for a worker that is lost."""
    settle_stdout()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
