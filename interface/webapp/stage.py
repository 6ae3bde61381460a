"""The stage `app`: starts the upload page, says where it is, and ends it at Ctrl-C."""

import contextlib
import errno
import http.client
import importlib.util
import ipaddress
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from interface.webapp.choosing import usable_run
from interface.webapp.server import UPLOAD_MEGABYTES
from pipeline.errors import UserError
from pipeline.progress import Progress, Result
from pipeline.stages.webapp import PASSWORD, App

ROOT = Path(__file__).parents[2]
PORTS = 20  # that are tried, from the one that is asked for
START_SECONDS = 60  # in which the page has to answer, on a machine that does much else
END_SECONDS = 5
KEPT_SECONDS = 60  # for which uploads wait for a person whose connection broke
LOOPBACK = "localhost", "127.0.0.1", "::1"
HEALTH = "/_stcore/health"
UNENCRYPTED = "Films and password travel unencrypted: put a proxy with TLS before it."
THEME = {  # the greys of a viewing room: an image is the brightest thing on the page
    "base": "dark",
    "primaryColor": "#4da3ff",
    "backgroundColor": "#0b0d10",
    "secondaryBackgroundColor": "#171b21",
    "textColor": "#e6e9ed",
}
SETTINGS = {
    "server.headless": "true",
    # A person's own settings of Streamlit would move the page, or open it to others.
    "server.baseUrlPath": "",
    "server.sslCertFile": "",
    "server.sslKeyFile": "",
    "server.enableAgentApi": "false",
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "server.enableStaticServing": "false",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "server.maxUploadSize": str(UPLOAD_MEGABYTES),
    "server.showEmailPrompt": "false",
    "server.disconnectedSessionTTL": str(KEPT_SECONDS),
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "client.toolbarMode": "minimal",
    "logger.level": "error",
    "logger.enableRich": "false",
    "logger.hideWelcomeMessage": "true",
}


def app(options: App, progress: Progress) -> Result:
    """Serve the upload page until Ctrl-C.

    Returns:
        No folder: the page writes nothing. Facts: address, run.

    Raises:
        UserError: There is no evaluated run, no password where one is needed, no free port, or
            the page does not start.
    """
    started = time.monotonic()
    password = options.password or os.environ.get(PASSWORD, "")
    if not is_loopback(options.host) and not password:
        raise UserError(
            f"--host {options.host}: others could open the page, so it needs a password",
            f"give --password, or set {PASSWORD}",
        )
    if importlib.util.find_spec("streamlit") is None:
        raise ModuleNotFoundError(name="streamlit")
    run = usable_run(options.runs, options.run)
    port = free_port(options.host, options.port)
    if port != options.port:
        progress.say(f"Port {options.port} is taken; the next free one is {port}.")
    address = f"http://{_shown_host(options.host)}:{port}"
    command = command_of(options.host, port, options.runs, run.folder)
    with _served(command, password) as page:
        with progress.waiting("Starting the page ..."):
            _wait_until_there(page, options.host, port)
        seconds = time.monotonic() - started
        # From the moment that it is said, Ctrl-C ends the page and is no failure.
        with contextlib.suppress(KeyboardInterrupt):
            progress.say(f"The page is at {address} after {seconds:.1f} s; Ctrl-C ends it.")
            if not is_loopback(options.host):
                progress.say(f"Others find it too. {UNENCRYPTED}")
            page.wait()
            raise UserError(f"{address}: the page ended by itself (status {page.returncode})")
    return Result(None, "The page is closed.", {"address": address, "run": run.name})


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int) -> int:
    """Return the first port, from the one that is asked for, on which nobody listens.

    Raises:
        UserError: All that are tried are taken, or the address is not one of this machine.
    """
    last = min(port + PORTS, 2**16)
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        for one in range(port, last):
            if _is_free(family, host, one):
                return one
    except OSError as error:
        problem = f"--host {host}: cannot be listened on ({error.strerror})"
        raise UserError(problem, "give an address of this machine") from None
    raise UserError(f"ports {port} to {last - 1} are all taken", "give another --port")


def _is_free(family: int, host: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        if os.name == "posix":  # elsewhere it would take a port away from who listens there
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def command_of(host: str, port: int, runs: Path, run: Path) -> list[str]:
    """Return the command that serves the page; the password is not in it."""
    theme = {f"theme.{name}": value for name, value in THEME.items()}
    place = {"server.address": host, "server.port": str(port),
             "browser.serverAddress": _shown_host(host)}  # fmt: skip
    words = [f"--{name}={value}" for name, value in (SETTINGS | theme | place).items()]
    if is_loopback(host):  # a page elsewhere cannot rename itself to this machine
        words += [f"--server.allowedHosts={name}" for name in dict.fromkeys((*LOOPBACK, host))]
    # -P: a folder "models" where the person is must not stand for ours.
    program = [sys.executable, "-P", "-m", "interface.webapp.server"]
    return [*program, *words, "--", str(runs.absolute()), str(run.absolute())]


@contextlib.contextmanager
def _served(command: list[str], password: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the page's process while the block runs."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), PASSWORD: password}
    page = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        yield page
    finally:
        page.terminate()
        try:
            page.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # a thread of it is deep in a computation
            page.kill()
            page.wait()


def _wait_until_there(page: "subprocess.Popen[bytes]", host: str, port: int) -> None:
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and page.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(near, port, timeout=1)
            connection.request("GET", HEALTH)
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        time.sleep(0.05)
    state = f"it ended with status {page.returncode}" if page.poll() is not None else "no answer"
    raise UserError(f"the page did not start ({state})", "its own words, if any, stand above")


def _shown_host(host: str) -> str:
    """Return the name under which a browser finds the page."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
