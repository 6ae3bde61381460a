"""What `streamlit run` serves: the page behind its gate."""

from starlette.middleware import Middleware
from streamlit import App

from interface.webapp.gate import Gate
from interface.webapp.server import PAGE

app = App(PAGE, middleware=[Middleware(Gate)])
