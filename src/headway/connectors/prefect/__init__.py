"""Prefect 3, self-hosted and Cloud, read over its REST API."""
