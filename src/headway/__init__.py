"""Headway: see and trust every run of every data pipeline, on any platform."""

__version__ = "0.1.0"
