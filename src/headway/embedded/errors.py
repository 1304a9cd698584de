"""The one error of the embedded PostgreSQL.

Everything in this package that cannot go on raises it, with a message that says what to do next: `headway up`
prints the message and nothing else.
"""


class EmbeddedServerError(Exception):
    """The embedded PostgreSQL cannot be used as asked; the message says the mend."""
