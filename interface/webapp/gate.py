"""Who may upload: those to whom the page has shown its upload field, and nobody before."""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit.runtime.scriptrunner import get_script_run_ctx

READING = {"GET", "HEAD", "OPTIONS"}  # methods that bring nothing
_admitted: set[str] = set()  # ids of sessions, which nobody can guess


def admit() -> None:
    """Let the person for whom the page is being drawn upload."""
    if context := get_script_run_ctx():
        _admitted.add(context.session_id)


class Gate:
    """Refuses what is sent to the page for a session that was not admitted, before it is read.

    Streamlit takes files for every open session: without this, those who cannot give the password
    could fill the memory.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Stand before another ASGI application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        app = self.app
        if scope["type"] == "http" and scope["method"] not in READING:
            # .../upload_file/SESSION/FILE, with or without a base path before it.
            _, _, session = scope["path"].rpartition("/")[0].rpartition("/")
            if session not in _admitted:
                app = PlainTextResponse("Not admitted.", 403)
        await app(scope, receive, send)
