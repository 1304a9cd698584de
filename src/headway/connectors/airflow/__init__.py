"""Airflow 3 (and, as far as its API goes, Airflow 2): DAG runs, read over the stable REST API."""
