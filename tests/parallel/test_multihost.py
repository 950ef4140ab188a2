"""The rendezvous, and real processes that join, stop and leave."""

import os
import re
import signal
import socket
import threading
import time

import jax.numpy as jnp
import pytest
from parallel.processes import finish, free_port, start, until

from macro.parallel import multihost, rendezvous
from macro.utils.errors import UserError


def gathered(port, callers, told=None, seconds=1):
    """What each of these processes, as threads, is told: None (all are here) or an error. `told`: their `processes`."""
    said = [None] * len(callers)
    where = f"localhost:{port}"

    def come(place, number, processes):
        try:
            if number == 0:
                rendezvous.serve(where, processes, seconds)
            else:
                rendezvous.connect(where, number, processes, seconds)
        except UserError as error:
            said[place] = str(error)

    threads = [
        threading.Thread(target=come, args=(place, number, told[place] if told else 4))
        for place, number in enumerate(callers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


@pytest.fixture
def port():
    return free_port()


def test_all_come_and_the_port_is_free_again(port):
    assert gathered(port, [3, 1, 0, 2]) == [None] * 4
    assert gathered(port, [2, 3, 1, 0]) == [None] * 4


@pytest.mark.parametrize(
    ("callers", "missing"), [([0, 1], "processes 2-3"), ([2, 0, 1], "process 3"), ([0, 2], "processes 1, 3")]
)
def test_all_are_told_who_is_missing(port, callers, missing):
    line = (
        f"--coordinator=localhost:{port}: {missing} of 4 did not come within 1 s; start them with the same command, "
        "or see their logs"
    )
    assert gathered(port, callers) == [line] * len(callers)


def test_all_are_told_who_came_twice(port):
    said = gathered(port, [0, 2, 2], seconds=9)
    assert len(set(said)) == 1
    assert re.search(r"process 2 came twice, from (127.0.0.1|::1) and (127.0.0.1|::1); give each its own", said[0])


def test_all_are_told_who_was_started_for_another_number_of_processes(port):
    said = gathered(port, [0, 1], told=[4, 3], seconds=9)
    assert said == [
        f"--coordinator=localhost:{port}: process 1 was started with --processes=3, process 0 with 4"
    ] * 2


def test_no_process_0(port):
    [line] = gathered(port, [1])
    assert line.startswith(f"--coordinator=localhost:{port}: process 0 did not answer there within 1 s (Connection ref")


def test_an_address_that_does_not_exist():
    with pytest.raises(UserError, match=r"process 0 did not answer there within 1 s \(.*(not known|resolution)"):
        rendezvous.connect("nowhere.invalid:7000", 1, 2, 1)


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on port {port} \(Address already in use\)"):
            rendezvous.serve(f"localhost:{port}", 2, 1)


def test_something_else_that_answers(port):
    with socket.create_server(("127.0.0.1", port)) as other:

        def serve():
            while True:
                try:
                    connection, _ = other.accept()
                except OSError:  # the test is over
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(UserError, match="something else answers there"):
            rendezvous.connect(f"localhost:{port}", 1, 2, 1)


def test_strangers_and_who_left_do_not_count(port):
    def disturb():
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"macro-rendezvous 1 4\n", b"macro-rendezvous 9 4\n", b""):
            for _ in range(50):  # until process 0 listens
                try:
                    with socket.create_connection(("localhost", port)) as connection:
                        connection.sendall(words)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)

    stranger = threading.Thread(target=disturb)
    stranger.start()
    [line] = gathered(port, [0])
    stranger.join()
    assert "processes 1-3 of 4 did not come" in line
    # Whoever left may come again.
    assert gathered(port, [0, 1, 2, 3]) == [None] * 4


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("localhost", 0, 2), "--coordinator=localhost: must be host:port, such as 10.0.0.1:7000, or none"),
        (("localhost:x", 0, 2), "--coordinator=localhost:x: must be host:port"),
        ((":70", 0, 2), "--coordinator=:70: must be host:port"),
        (("localhost:70000", 0, 2), "--coordinator=localhost:70000: must be host:port"),
        (("localhost:70", 2, 2), "--process=2: with --processes=2 it must be 0 to 1"),
        (("localhost:70", -1, 4), "--process=-1: with --processes=4 it must be 0 to 3"),
        (("localhost:70", 0, 0), "--processes=0: with --coordinator, say how many processes take part"),
        (("", 0, 4), "--processes=4: no cluster was found; name --coordinator=host:port, --process and --processes"),
        (("", 1, 0), "--process=1: no cluster was found; name --coordinator"),
        (("none", 0, 4), "--processes=4: this process is alone with --coordinator=none"),
        (("localhost:70", 0, 2, 0), "--join_seconds=0: must be at least 1"),
    ],
)
def test_flags_that_cannot_be(flags, line):
    with pytest.raises(UserError, match="^" + re.escape(line)), multihost.initialize(*flags):
        pass


@pytest.mark.parametrize("flags", [(), ("none",), ("localhost:70", 0, 1)])
def test_alone_nothing_waits(flags):
    with multihost.initialize(*flags), multihost.primary_first("data"):
        multihost.barrier("written")
        assert multihost.is_primary()
        tree = {"kernel": jnp.arange(3.0)}
        assert multihost.gather_to_primary(tree) is tree
        assert multihost.process_allgather(tree["kernel"]).tolist() == [0, 1, 2]


def test_a_cluster_that_cannot_be_read(monkeypatch):
    slurm(monkeypatch.setenv, processes="two")
    line = "--coordinator: this is a cluster, but .*invalid literal"
    with pytest.raises(UserError, match=line), multihost.initialize():
        pass


def test_a_cluster_of_another_size(monkeypatch):
    slurm(monkeypatch.setenv, processes=2)
    line = "^--processes=4: the cluster has 2 processes and this is number 0; leave the flag out"
    with pytest.raises(UserError, match=line), multihost.initialize(processes=4):
        pass


def test_a_cluster_of_one(monkeypatch):
    slurm(monkeypatch.setenv, processes=1)
    with multihost.initialize():
        assert multihost.is_primary()


def test_sigterm_to_one_process():
    handler = signal.getsignal(signal.SIGTERM)
    with multihost.preemption_guard() as due:
        assert not due()
        os.kill(os.getpid(), signal.SIGTERM)
        assert due()
        assert due()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_sigterm_is_left_alone_outside_the_main_thread():
    answers = []

    def ask():
        with multihost.preemption_guard() as due:
            answers.append(due())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [False]


def slurm(put, processes):
    """Surroundings as Slurm makes them for process 0 of a job step on this machine."""
    given = {"JOB_ID": 17, "STEP_NODELIST": "localhost", "NTASKS": processes, "PROCID": 0, "LOCALID": 0}
    for name, value in given.items():
        put(f"SLURM_{name}", str(value))


# Joins, does what `deed` says, and leaves.
PROGRAM = """
import os, sys, time
from pathlib import Path

from macro.parallel import multihost
from macro.utils.config import run
from macro.utils.errors import UserError


def main(folder, deed, coordinator="", process=-1, processes=0, join_seconds=300):
    with multihost.initialize(coordinator, process, processes, join_seconds):
        import jax

        number = jax.process_index()
        print("joined", number, jax.process_count(), jax.device_count(), multihost.is_primary(), flush=True)
        return globals()[deed](Path(folder), number)


def make(folder, number):
    with multihost.primary_first("made"):
        print("found", [file.name for file in folder.iterdir()])
        if multihost.is_primary():
            time.sleep(0.5)
        (folder / f"made by {number}").touch()


def err(folder, number):
    if number == 0:
        raise UserError("only process 0 cannot go on")
    multihost.barrier("never")


def err_too(folder, number):
    raise UserError(f"nobody can go on, says {number}")


def work(folder, number):
    with multihost.preemption_guard() as due:
        for step in range(100_000):
            if due():
                print("stopped", step)
                return 143
            (folder / f"at work {number}").touch()


def idle(folder, number):
    (folder / f"idle {number}").touch()
    time.sleep(100)


run(main, folder="of the test", deed="what to do", **multihost.HELPS)
"""


def commands(tmp_path, deed, numbers, processes, join_seconds=60):
    where = f"--coordinator=localhost:{free_port()}"
    for number in numbers:
        flags = [where, f"--process={number}", f"--processes={processes}", f"--join_seconds={join_seconds}"]
        yield ["-c", PROGRAM, f"--folder={tmp_path}", f"--deed={deed}", *flags]


def lines(process, word):
    """What follows the word, in each line of the process's output that begins with it."""
    return [line.removeprefix(word).strip() for line in process.out.splitlines() if line.startswith(word)]


def test_the_command_line_says_who_is_missing(tmp_path):
    first, second = finish(list(commands(tmp_path, "make", (0, 2), 4, join_seconds=1)))
    assert (first.code, second.code) == (2, 2)
    assert first.out == second.out == ""
    waiting, line = first.err.splitlines()
    assert re.fullmatch(r"waiting for processes 1-3 at localhost:\d+", waiting)
    assert re.fullmatch(r"error: --coordinator=localhost:\d+: processes 1, 3 of 4 did not come within 1 s; .*", line)
    assert second.err.splitlines() == [line]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_they_join_and_the_first_goes_ahead(tmp_path, processes):
    left = finish(list(commands(tmp_path, "make", range(processes), processes)), devices=2)
    assert [process.code for process in left] == [0] * processes
    assert [lines(process, "joined") for process in left] == [
        [f"{number} {processes} {2 * processes} {number == 0}"] for number in range(processes)
    ]
    assert lines(left[0], "found") == ["[]"]
    assert all("made by 0" in lines(process, "found")[0] for process in left[1:])


@pytest.mark.slow
def test_a_cluster_joins_without_flags(tmp_path):
    around = {}
    slurm(around.__setitem__, processes=2)
    del around["SLURM_PROCID"]
    command = ["-c", PROGRAM, f"--folder={tmp_path}", "--deed=make", "--processes=2"]
    with (
        start([command], SLURM_PROCID="0", **around) as [first],
        start([command], SLURM_PROCID="1", **around) as [second],
    ):
        left = [process.finish(60) for process in (first, second)]
    assert [process.code for process in left] == [0, 0]
    assert [lines(process, "joined") for process in left] == [["0 2 2 True"], ["1 2 2 False"]]


@pytest.mark.slow
def test_one_that_fails_says_why_and_the_others_end(tmp_path):
    first, second = finish(list(commands(tmp_path, "err", (0, 1), 2)), seconds=60)
    assert first.code == 2
    assert first.err.splitlines()[-1] == "error: only process 0 cannot go on"
    assert second.code not in (0, 2)


@pytest.mark.slow
def test_a_mistake_of_all_is_one_line_in_each(tmp_path):
    left = finish(list(commands(tmp_path, "err_too", (0, 1), 2)), seconds=60)
    assert [process.code for process in left] == [2, 2]
    assert [process.err.splitlines()[-1] for process in left] == [
        f"error: nobody can go on, says {number}" for number in (0, 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_sigterm_to_one_stops_all_before_the_same_step(tmp_path, told):
    with start(list(commands(tmp_path, "work", (0, 1), 2))) as running:
        until(lambda: all((tmp_path / f"at work {number}").exists() for number in (0, 1)))
        running[told].popen.send_signal(signal.SIGTERM)
        left = [process.finish(60) for process in running]
    assert [process.code for process in left] == [143, 143]
    stopped = [lines(process, "stopped") for process in left]
    assert stopped[0] == stopped[1]
    assert len(stopped[0]) == 1


@pytest.mark.slow
def test_sigterm_ends_a_process_that_takes_no_steps(tmp_path):
    with start(list(commands(tmp_path, "idle", (0, 1), 2))) as running:
        until(lambda: all((tmp_path / f"idle {number}").exists() for number in (0, 1)))
        for process in running:
            process.popen.send_signal(signal.SIGTERM)
        assert [process.finish(30).code for process in running] == [-signal.SIGTERM, -signal.SIGTERM]
