"""`control-plane` and `python -m control_plane`."""

from __future__ import annotations


def main() -> None:
    from control_plane.cli.main import app

    app(prog_name="control-plane")


if __name__ == "__main__":
    main()
