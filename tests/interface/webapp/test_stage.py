"""Starting the page: what is refused in one line, and that a password goes nowhere."""

import shutil
import signal
import socket
import time

import pexpect
import pytest

from interface.flags import command
from interface.webapp.stage import command_of, free_port, is_loopback
from pipeline.options import checked
from pipeline.stages.webapp import App


def one_line(done):
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_no_run_names_the_command(run_here):
    assert "runs: holds no finished run; run: python main.py train" in one_line(run_here("app"))


def test_a_run_that_is_not_evaluated_names_the_command(run_here, place, tmp_path):
    shutil.copytree(place / "runs", tmp_path / "runs")
    (metrics,) = (tmp_path / "runs").glob("*/*/metrics.json")
    metrics.unlink()
    line = one_line(run_here("app"))
    assert "runs: holds no evaluated run; run: python main.py evaluate" in line
    name = f"{metrics.parents[1].name}/{metrics.parent.name}"
    line = one_line(run_here("app", "--run", name))
    assert "has not been evaluated; run: python main.py evaluate --run" in line


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "ward.example"])
def test_an_address_that_others_reach_needs_a_password(run_here, monkeypatch, host):
    monkeypatch.delenv("MAMMOLAB_PASSWORD", raising=False)
    line = one_line(run_here("app", "--host", host))
    assert "needs a password; give --password, or set MAMMOLAB_PASSWORD" in line


def test_addresses_of_this_machine_alone():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.0.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example")))


def test_a_port_that_is_taken_is_passed_over():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert free_port("127.0.0.1", taken) > taken


def test_an_address_of_another_machine_is_refused(run_here, place, tmp_path):
    shutil.copytree(place / "runs", tmp_path / "runs")
    line = one_line(run_here("app", "--host", "192.0.2.1", "--password", "x"))
    assert "--host 192.0.2.1: cannot be listened on" in line


def test_a_password_is_in_no_command(tmp_path):
    options = checked(App, {"password": "open sesame", "host": "0.0.0.0"})
    assert "sesame" not in command("app", options)
    assert "sesame" not in " ".join(command_of("0.0.0.0", 1, tmp_path, tmp_path))


@pytest.mark.parametrize("words", [["--password", "sesame"], ["--password=sesame"]])
def test_a_password_is_in_no_log_and_in_no_memory_of_answers(run_main, tmp_path, words):
    one_line(run_main("app", *words, "--log-file", "app.log"))
    assert "****" in (tmp_path / "app.log").read_text()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or "sesame" not in path.read_text()


def test_a_password_is_not_shown_in_the_list_of_answers(capsys):
    from interface.screen import Screen

    Screen().summary("app", checked(App, {"password": "sesame"}))
    shown = capsys.readouterr().out
    assert "sesame" not in shown
    assert "****" in shown


@pytest.mark.slow
def test_ctrl_c_ends_the_page(terminal, place):
    page = terminal("app", cwd=place)
    page.expect("The page is at http://127.0.0.1")
    page.expect("Ctrl-C ends it")
    page.sendintr()
    page.expect("Not a medical device")
    page.expect("The page is closed")
    page.expect(pexpect.EOF)
    assert "Traceback" not in page.before
    page.close()
    assert page.exitstatus == 0


@pytest.mark.slow
def test_the_page_ends_where_its_command_is_killed(terminal, place):
    page = terminal("app", cwd=place)
    page.expect(r"http://127.0.0.1:(\d+)")
    address = "127.0.0.1", int(page.match[1])
    socket.create_connection(address, 5).close()
    page.kill(signal.SIGKILL)
    end = time.monotonic() + 10
    while (listens := _listens(address)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not listens


def _listens(address):
    try:
        socket.create_connection(address, 5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1"])
def test_a_page_of_this_machine_answers_to_its_own_address_and_to_no_foreign_name(tmp_path, host):
    words = command_of(host, 8501, tmp_path, tmp_path)
    allowed = [word for word in words if word.startswith("--server.allowedHosts=")]
    assert f"--server.allowedHosts={host}" in allowed
    assert len(allowed) == len(set(allowed)) <= 4


def test_nothing_of_a_person_leaves_the_machine(tmp_path):
    words = command_of("127.0.0.1", 8501, tmp_path, tmp_path)
    assert "--browser.gatherUsageStats=false" in words
    assert "--client.showErrorDetails=none" in words
    assert "--server.allowedHosts=localhost" in words
