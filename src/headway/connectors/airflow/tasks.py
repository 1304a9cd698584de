"""Which tasks made a run fail: Airflow has no error on the run itself.

An extra that ``api.py`` adds to failed runs. Rule not to break: trouble with it ends the asking until the next walk,
and nothing else (``tests/connectors/airflow/test_api.py``).
"""

from headway.connectors import memory
from headway.connectors.errors import SourceError
from headway.connectors.http import Http
from headway.core import reading

REQUESTS = 100
LISTED = 100
KNOWN = 2_000


class FailedTasks:
    """Asks once for each end of a run, and a bounded number of times a walk."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._known: dict[tuple[str, str], list[str]] = {}
        self._left = 0

    def begin(self) -> None:
        """Begin a walk: so many requests may be made again."""
        self._left = REQUESTS

    def of(self, path: str, end: str) -> list[str]:
        """Return the ids of the failed tasks that are listed at ``path``, of a run that ended at ``end``."""
        if (found := self._known.get((path, end))) is not None:
            return found
        if self._left <= 0:
            return []
        self._left -= 1
        try:
            answer = self._http.get(path, {"state": "failed", "limit": LISTED}, missing_ok=True)
        except SourceError:
            self._left = 0
            return []
        names = (reading.text_at(task, "task_id") for task in reading.objects_at(answer.data, "task_instances"))
        return memory.keep(self._known, (path, end), sorted({name for name in names if name is not None}), KNOWN)
