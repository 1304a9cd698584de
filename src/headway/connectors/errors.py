"""What can be wrong with a source, in words that its operator can act on. No message holds a credential."""


class SourceError(Exception):
    """A source cannot be read now. ``code`` is stable; ``retry_after_seconds`` is what the source asked for."""

    def __init__(self, code: str, detail: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class StoppedError(Exception):
    """The process is told to stop: no more requests are made."""
