"""GitHub Actions, on github.com and GitHub Enterprise, read over its REST API."""
