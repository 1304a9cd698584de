"""The ``headway`` command."""

import sys


def main() -> None:
    """Run the command line, or say how to install it."""
    try:
        from headway.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("headway"):
            raise
        sys.stderr.write(f"headway: {error.name} is not installed; the service needs: pip install 'headway[server]'\n")
        sys.exit(1)
    app(prog_name="headway")


if __name__ == "__main__":
    main()
