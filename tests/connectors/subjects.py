"""The connectors that the contract suite judges, one line each."""

from tests.connectors.airflow.subject import AirflowSubject
from tests.connectors.dagster.subject import DagsterSubject
from tests.connectors.github_actions.subject import GithubActionsSubject
from tests.connectors.gitlab_ci.subject import GitlabCiSubject
from tests.connectors.prefect.subject import PrefectSubject
from tests.connectors.rest.subject import SUBJECTS as REST_SUBJECTS
from tests.connectors.subject import Subject

SUBJECTS: tuple[Subject, ...] = (
    AirflowSubject(),
    DagsterSubject(),
    GithubActionsSubject(),
    GitlabCiSubject(),
    PrefectSubject(),
    *REST_SUBJECTS,
)
