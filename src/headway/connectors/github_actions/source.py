"""The settings of a source of workflow runs."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from headway.connectors.config import Duration, PlainUrl, Source


class GithubActionsSource(Source):
    """Repositories of github.com or of a GitHub Enterprise Server."""

    platform: Literal["github_actions"]
    url: PlainUrl = Field("https://api.github.com", description="the API; of GitHub Enterprise: https://HOST/api/v3")
    owner: str | None = Field(
        None, pattern=r"^[\w.-]+$", description="organisation or user whose repositories are read, archived ones not"
    )
    repositories: list[Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]] = Field(
        [], description="repositories to read, each as OWNER/NAME"
    )
    branches: list[str] = Field([], description="branches whose runs are taken, with * and ?; none: all")
    sweep: Duration = Field(
        timedelta(days=30), description="how far back all is read again once a day: re-runs are old"
    )

    @model_validator(mode="after")
    def _has_repositories(self) -> Self:
        if self.owner is None and not self.repositories:
            raise ValueError('owner or repositories is required: owner = "ORGANISATION", or ["OWNER/NAME"]')
        return self
