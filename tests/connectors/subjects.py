"""The connectors that the contract suite judges, one line each."""

from tests.connectors.subject import Subject

SUBJECTS: tuple[Subject, ...] = ()
