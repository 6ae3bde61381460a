"""Work on a Dask cluster of real processes: the same results, and a clear line for each trouble."""

import concurrent.futures as futures
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from platform import python_version

import pytest

from pipeline.cluster import address_problem
from pipeline.errors import UserError
from pipeline.work import AHEAD, run_all
from tests.conftest import ROOT

if importlib.util.find_spec("distributed") is None:
    pytest.skip("Dask is not installed", allow_module_level=True)
QUIET = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
WITH_CODE = {"PYTHONPATH": str(ROOT)}
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc says whose process reads it")


def halve(number):
    if number % 2:
        raise UserError(f"{number}: is odd", "give an even one")
    return number // 2


def slowly(number):
    time.sleep(0.2)
    return number, os.getpid()


def touch(path):
    time.sleep(0.2)
    path.touch()


def sign(path):
    with path.open("a") as file:
        file.write("done\n")


def die(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def import_what_is_not_there(_job):
    import no_such_package  # noqa: F401


def code_version():
    return os.environ.get("CODE", "newest")


class Cluster:
    """A scheduler and workers as a person starts them; the scheduler has not got our code."""

    def __init__(self, folder):
        self.folder, self.processes, self.address = folder, [], None

    @property
    def workers(self):
        return self.processes[1:]

    def start(self, **settings):
        settings = {f"DASK_DISTRIBUTED__SCHEDULER__{key}": value for key, value in settings.items()}
        known = self.folder / "scheduler.json"
        self._start("scheduler", settings, ("--port", "0", "--scheduler-file", known))
        limit = time.monotonic() + 30
        while self.address is None:
            assert time.monotonic() < limit, "the scheduler does not start"
            time.sleep(0.02)
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # not all written
                self.address = json.loads(known.read_text())["address"]
        return self

    def add_workers(self, number, settings=WITH_CODE):
        arguments = (self.address, "--no-nanny", "--nthreads", "1")
        there = len(self.workers)
        for _ in range(number):
            self._start("worker", settings, arguments)
        import distributed  # here, as it takes a second that most processes need not spend

        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(there + number, timeout=30)
        return self

    def _start(self, what, settings, arguments):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *QUIET, *arguments]
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        with (self.folder / "cluster.log").open("a") as log:
            self.processes.append(
                subprocess.Popen(
                    command, cwd=self.folder, env=inherited | settings, stdout=log, stderr=log
                )
            )

    def stop(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def make_cluster(tmp_path_factory):
    started = []

    def make(**settings):
        started.append(Cluster(tmp_path_factory.mktemp("cluster")))
        return started[-1].start(**settings)  # one that fails to start is stopped too

    yield make
    for cluster in started:
        cluster.stop()


@pytest.fixture(scope="module")
def cluster(make_cluster):
    return make_cluster().add_workers(1).add_workers(1, WITH_CODE | {"CODE": "older"})


@pytest.fixture(autouse=True)
def nothing_is_printed(capfd):
    yield
    assert capfd.readouterr() == ("", "")


def refusal(cluster, function=halve, jobs=range(4), **asked):
    """Return how the work is refused, and after how many seconds."""
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        list(run_all(function, jobs, 1, cluster, **asked))
    return str(caught.value), time.monotonic() - started


def test_a_cluster_gives_what_this_machine_gives_though_one_job_is_bad(cluster):
    def outcomes(*where):
        return {job: str(value) for job, value in run_all(halve, range(40), 1, *where)}

    assert outcomes(cluster.address) == outcomes()
    assert outcomes(cluster.address.removeprefix("tcp://"))[7] == "7: is odd; give an even one"


def test_all_workers_work_and_nobody_else(cluster):
    pids = {pid for _, (_, pid) in run_all(slowly, range(6), 1, cluster.address)}
    assert pids == {worker.pid for worker in cluster.workers}


def test_equal_jobs_are_each_done(cluster, tmp_path):
    list(run_all(sign, [tmp_path / "list"] * 3, 1, cluster.address))
    assert (tmp_path / "list").read_text() == "done\n" * 3


def test_jobs_are_drawn_only_as_workers_need_them(cluster):
    drawn = []

    def jobs():
        for number in range(0, 1000, 2):
            drawn.append(number)
            yield number

    results = run_all(halve, jobs(), 1, cluster.address)
    next(results)
    assert len(drawn) <= 2 * AHEAD
    results.close()


def test_a_programming_error_ends_the_work_and_not_the_cluster(cluster):
    with pytest.raises(TypeError):
        list(run_all(halve, ["text"], 1, cluster.address))
    assert [value for _, value in run_all(halve, [8], 1, cluster.address)] == [4]


def test_no_job_needs_no_cluster():
    assert list(run_all(halve, [], 1, "127.0.0.1:1")) == []


@pytest.mark.parametrize(
    "address",
    ["nonsense", "host", "host:", ":8786", "host:port", "host:0", "host:65536", "ftp://host:1",
     "tls://host:8786", "tcp://", "tcp://host", "host:1/x", "a:b:1", "::1:8786", " ", "a b:1"],
)  # fmt: skip
def test_an_address_that_cannot_be_one_is_refused(address):
    assert "such as tcp://localhost:8786" in address_problem(address)
    assert refusal(address)[0].startswith(f"{address}: must be host and port")


@pytest.mark.parametrize(
    "address", ["", "tcp://localhost:8786", "10.0.0.7:8786", "node-17.example.org:1", "[::1]:8786"]
)
def test_an_address_that_can_be_one_is_taken(address):
    assert address_problem(address) is None


def test_an_address_where_nobody_answers_is_refused(monkeypatch):
    monkeypatch.setattr("pipeline.cluster.PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told, seconds = refusal(f"127.0.0.1:{port}")
    assert told.startswith(f"127.0.0.1:{port}: no Dask scheduler answers there; give")
    assert seconds < 20


def test_a_port_of_something_else_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server, futures.ThreadPoolExecutor() as pool:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        asked = pool.submit(refusal, address)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
            told, _ = asked.result()
    assert told.startswith(f"{address}: no Dask scheduler answers there; give")


@pytest.mark.slow
def test_it_waits_a_little_for_workers_and_tells_those_without_our_code(make_cluster):
    bare = make_cluster()
    with socket.create_server(("127.0.0.1", 0)) as server, futures.ThreadPoolExecutor() as pool:
        silent = f"127.0.0.1:{server.getsockname()[1]}"
        (no_answer, after), (no_workers, later) = pool.map(refusal, (silent, bare.address))
    assert no_answer.startswith(f"{silent}: no Dask scheduler answers there; give --cluster")
    start = f"python -m distributed.cli.dask_worker {bare.address}"
    assert no_workers.startswith(f"{bare.address}: the cluster has no workers; start workers in")
    assert no_workers.endswith(start)
    assert 1 < min(after, later)
    assert max(after, later) < 60  # five seconds each, where nobody else takes the cores
    bare.add_workers(1, settings={})
    for _ in range(2):
        told, _ = refusal(bare.address)
        assert told.startswith(
            f"{bare.address}: a worker cannot load this tool's code (No module named 'pipeline'); "
            "start workers in this tool's folder and environment: "
        )


def test_a_package_that_workers_lack_is_told(cluster):
    told, _ = refusal(cluster.address, import_what_is_not_there)
    assert "a worker cannot load this tool's code (No module named 'no_such_package')" in told


def test_a_folder_that_workers_do_not_see_is_told_before_the_work(cluster, tmp_path):
    missing, made = tmp_path / "not" / "there", tmp_path / "made"
    told, _ = refusal(cluster.address, touch, [made], shared=[tmp_path, missing])
    assert told.startswith(f"{missing}: the worker on ")
    assert told.endswith(" does not see it; choose folders that all machines of the cluster share")
    assert not made.exists()


@on_linux
def test_a_folder_that_only_this_machine_has_is_told(cluster):
    mine = Path("/proc/self/task") / str(os.getpid())
    assert mine.is_dir()
    assert "does not see it; choose folders" in refusal(cluster.address, shared=[mine])[0]


@on_linux
def test_another_file_of_the_same_name_is_told(cluster):
    told, _ = refusal(cluster.address, shared=[Path("/proc/self/cmdline")])
    assert "sees something else there; choose folders" in told


def test_workers_that_came_later_are_held_to_the_same(cluster, tmp_path):
    record = tmp_path / "record.json"
    record.write_text("mine")
    results = run_all(slowly, range(40), 1, cluster.address, shared=[tmp_path, record])
    next(results)
    record.write_text("another's")
    with pytest.raises(UserError, match=r"record\.json: .* sees something else there"):
        list(results)


def test_one_worker_with_other_code_is_told_before_the_work(cluster, tmp_path):
    made = tmp_path / "made"
    told, _ = refusal(cluster.address, touch, [made, made], code=code_version)
    assert "runs another version of this tool; start the cluster's workers anew" in told
    time.sleep(0.5)  # longer than the other worker would take
    assert not made.exists()


def test_workers_with_the_same_code_work(cluster):
    assert len(list(run_all(halve, [2], 1, cluster.address, code=python_version))) == 1


def test_ctrl_c_cancels_what_waits_and_leaves_the_cluster(cluster, tmp_path):
    script = tmp_path / "stage.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from pipeline.work import run_all\n"
        "from tests.pipeline.test_cluster import touch\n"
        "jobs = [Path(sys.argv[1]) / str(number) for number in range(400)]\n"
        "try:\n"
        "    for _ in run_all(touch, jobs, 1, sys.argv[2]):\n"
        "        print('one', flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    made = tmp_path / "made"
    made.mkdir()
    stage = subprocess.Popen(
        [sys.executable, script, made, cluster.address],
        env=os.environ | WITH_CODE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stage.stdout.readline()
    time.sleep(0.3)
    stage.send_signal(signal.SIGINT)
    _, told = stage.communicate(timeout=10)
    assert (stage.returncode, told) == (130, "")
    time.sleep(0.5)  # what was begun is finished
    left = len(list(made.iterdir()))
    assert {pid for _, (_, pid) in run_all(slowly, range(6), 1, cluster.address)} == {
        worker.pid for worker in cluster.workers
    }
    assert len(list(made.iterdir())) == left


@pytest.mark.slow
def test_a_lost_worker_costs_nothing_and_the_last_one_is_told(make_cluster, monkeypatch):
    monkeypatch.setattr("pipeline.cluster.RETURN", 2.0)
    cluster = make_cluster().add_workers(2)
    results = run_all(slowly, range(60), 1, cluster.address)
    done = [next(results) for _ in range(2)]
    cluster.workers[0].kill()
    done += [next(results) for _ in range(10)]
    assert {job for job, _ in done} >= set(range(8))
    cluster.workers[1].kill()
    started = time.monotonic()
    with pytest.raises(UserError, match="the cluster has lost all its workers; start some, and"):
        list(results)
    assert time.monotonic() - started < 20


@pytest.mark.slow
def test_a_job_that_ends_its_worker_and_then_a_lost_scheduler_are_told(make_cluster):
    cluster = make_cluster(ALLOWED_FAILURES="0").add_workers(2)
    told, _ = refusal(cluster.address, die)
    assert "most likely for want of memory; give the workers more memory" in told
    results = run_all(slowly, range(60), 1, cluster.address)
    next(results)
    cluster.processes[0].kill()
    with pytest.raises(UserError, match="was stopped or does not answer any more; start it, and"):
        list(results)


@pytest.mark.slow
def test_preprocessing_on_a_cluster_gives_the_same_bytes(cluster, prepared, run_main, tmp_path):
    flags = ("--data", prepared / "dataset", "--out", "there", "--batch")
    done = run_main("preprocess", *flags, "--cluster", cluster.address)
    assert done.returncode == 0, done.stderr
    here, there = prepared / "preprocessed", tmp_path / "there"
    names = sorted(path.relative_to(here) for path in here.glob("**/*.png"))
    assert names == sorted(path.relative_to(there) for path in there.glob("**/*.png"))
    for name in [*names, "manifest.csv"]:
        assert (there / name).read_bytes() == (here / name).read_bytes(), name


@pytest.mark.parametrize(
    ("preparation", "expected"),
    [
        ("", "[]"),
        ("sys.modules['distributed'] = None", "--cluster needs Dask, which is not installed; "),
    ],
)
def test_dask_is_loaded_only_for_a_cluster(tmp_path, preparation, expected):
    script = tmp_path / "stage.py"
    script.write_text(
        "import sys\n"
        f"{preparation}\n"
        "from pipeline.errors import UserError\n"
        "from pipeline.work import run_all\n"
        "if __name__ == '__main__':\n"
        "    list(run_all(abs, [1, 2], 1))\n"
        "    if 'distributed' not in sys.modules:\n"
        "        print([name for name in sys.modules if name.split('.')[0] == 'dask'])\n"
        "    else:\n"
        "        try:\n"
        "            list(run_all(abs, [1], 1, 'localhost:8786'))\n"
        "        except UserError as error:\n"
        "            print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, script], env=os.environ | WITH_CODE, capture_output=True, text=True
    )
    assert (done.stdout.startswith(expected), done.stderr) == (True, "")
