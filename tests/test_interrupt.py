import os
import signal
import subprocess
import sys
import threading

from common.interrupt import Interrupt


def test_the_first_signal_is_noted_and_said():
    said = []
    before = signal.getsignal(signal.SIGINT)
    with Interrupt(said.append) as interrupt:
        assert not interrupt
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt and interrupt.number == signal.SIGINT
    assert len(said) == 1 and said[0].startswith("SIGINT")
    assert signal.getsignal(signal.SIGINT) == before


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
