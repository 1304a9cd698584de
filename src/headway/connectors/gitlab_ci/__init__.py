"""GitLab CI/CD, gitlab.com and self-managed, read over its REST API."""
