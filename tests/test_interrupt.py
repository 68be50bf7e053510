import os
import signal
import subprocess
import sys
import threading

import pytest

from common.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted_and_nothing_else_is_done(number, capsys):
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert not interrupt
        os.kill(os.getpid(), number)
        assert interrupt and interrupt.number == number
    assert interrupt.name == signal.Signals(number).name
    assert signal.getsignal(number) == before
    assert capsys.readouterr() == ("", "")  # printing inside a write would raise


def test_a_terminal_that_closes_may_send_two_hang_ups():
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
    assert interrupt.number == signal.SIGHUP


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not interrupt and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal\n"
        "from common.interrupt import Interrupt\n"
        "with Interrupt():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM
    assert "still here" not in done.stdout


def test_in_another_thread_nothing_is_caught():
    seen = []

    def work():
        with Interrupt() as interrupt:
            seen.append(interrupt.number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
