"""Reads any platform that lists its runs as JSON over HTTP, by configuration alone (``docs/connectors/rest.md``)."""
