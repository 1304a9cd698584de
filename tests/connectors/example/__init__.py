"""The smallest connector: a complete one, for a platform that does not exist.

``docs/connectors/writing-one.md`` explains it, and the contract suite is tested with it. It lives under tests only.
"""
