"""An application that is made when it is imported, with the settings of the environment."""

from control_plane.settings import Settings
from tests.integration.testing.notes import notes

app = notes(Settings())
