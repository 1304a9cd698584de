"""Which database a command is about: the one of the settings' URLs, or the embedded one of a data directory."""

from pathlib import Path

from headway.embedded import bootstrap
from headway.embedded.server import default_data_dir, read_running
from headway.migrations.runner import APP, OWNER, READER
from headway.settings import Settings

ROLES = {"owner": OWNER, "app": APP, "reader": READER}


class NoDatabaseError(Exception):
    """There is no database to talk to; the message says what to do."""


def data_dir(settings: Settings) -> Path:
    """Return the directory of the embedded database."""
    return (settings.data_dir or default_data_dir()).expanduser().resolve()


def database_url(settings: Settings, role: str = "app") -> str:
    """Return the URL of the database for one of the roles owner, app and reader.

    Raises:
        NoDatabaseError: no URL is set for it, and no ``headway up`` runs on the data directory.
    """
    urls = {"owner": settings.owner_database_url, "app": settings.database_url, "reader": settings.reader_database_url}
    url = urls[role]
    if url is not None:
        return url.get_secret_value()
    if any(urls.values()):
        variable = "HEADWAY_DATABASE_URL" if role == "app" else f"HEADWAY_{role.upper()}_DATABASE_URL"
        msg = f"{variable} is not set, and is needed here"
        raise NoDatabaseError(msg)
    directory = data_dir(settings)
    try:
        running = read_running(directory)
        if running is not None:
            return bootstrap.role_url(running, directory, ROLES[role])
    except PermissionError as error:
        msg = f"{error.filename} may not be read: run this as the user that runs headway up"
        raise NoDatabaseError(msg) from None
    except FileNotFoundError:
        pass
    msg = (
        f"no Headway is running on {directory}: start it with headway up, name its directory with --data, "
        "or set HEADWAY_DATABASE_URL"
    )
    raise NoDatabaseError(msg)
