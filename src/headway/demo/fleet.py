"""The demo's fleet, as a table: clients, their pipelines with what becomes of them, and alert rules.

Data alone; nothing here is real. Hosts are under example.com, which is nobody's. Errors are templates: ``{n}`` is a
number, ``{at}`` the slot, and the made-up secrets are there to be redacted on their way in.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from headway.demo.behaviours import Behaviour, canceled, hiccups, new, on_demand, outage, silent, skipped, slower
from headway.pipelines.schemas import Schedule


@dataclass(frozen=True, slots=True)
class DemoPipeline:
    """A pipeline, how its runs usually go, and its story."""

    name: str
    platform: str
    pipeline_type: str
    every: Schedule | None  # when it runs
    owner: str
    seconds: float  # it usually takes
    rows: int | None  # it usually processes, at the beginning
    story: tuple[Behaviour, ...] = ()
    environment: str = "prod"
    description: str | None = None
    tags: tuple[str, ...] = ()
    success_target: float | None = None
    growth: float = 0.2  # of its rows in 90 days
    spread: float = 0.25  # sigma of the durations' logarithm
    wait: tuple[float, float] = (1.0, 12.0)  # seconds from slot to start
    has_schedule: bool = True  # else it is started by hand: nothing is expected of it

    @property
    def slug(self) -> str:
        """The name, with the environment where that is not prod."""
        return self.name if self.environment == "prod" else f"{self.name}-{self.environment}"

    @property
    def cadence(self) -> dict[str, Any] | None:
        """When it runs, as a schedule is kept."""
        return None if self.every is None else self.every.stored()

    @property
    def schedule(self) -> dict[str, Any] | None:
        """When its runs are expected."""
        return self.cadence if self.has_schedule else None


@dataclass(frozen=True, slots=True)
class DemoRule:
    """An alert rule of a client, or of one of its pipelines by slug."""

    rule_type: str
    channel: str
    destination: str
    pipeline: str | None = None
    threshold: float | None = None
    window_minutes: int | None = None
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class DemoClient:
    """A client with what is its own."""

    slug: str
    name: str
    tags: tuple[str, ...]
    pipelines: tuple[DemoPipeline, ...]
    rules: tuple[DemoRule, ...]


def _cron(expression: str, timezone: str, grace_minutes: int = 15) -> Schedule:
    return Schedule(cron=expression, timezone=timezone, grace_seconds=grace_minutes * 60)


def _each(minutes: int, grace_minutes: int = 10) -> Schedule:
    return Schedule(every_seconds=minutes * 60, grace_seconds=grace_minutes * 60)


def _ago(days: float = 0, hours: float = 0) -> timedelta:
    return timedelta(days=days, hours=hours)


# Made up, and put together only here, so that no scanner takes them for real ones.
FAKE_SECRETS = {"password": "plum-tractor-" + "4711" * 2, "key_id": "AK" + "IA" + "DEMO" * 4}

# ---- What goes wrong ----------------------------------------------------------------------------------------------
TIMEOUT = (
    "requests.exceptions.ConnectTimeout: HTTPSConnectionPool(host='api.partner.example.com', port=443): Max retries "
    "exceeded with url: /v2/items?page={n} (Caused by ConnectTimeoutError: timed out after 30 s)"
)
GATEWAY = "HTTP 502 Bad Gateway from https://gateway.example.com/v1/export?batch={n}: upstream connect error or reset"
RATE_LIMIT = "429 Too Many Requests: quota of 10000 calls per hour is used up; retry after {n} s"
DEADLOCK = (
    "psycopg.errors.DeadlockDetected: deadlock detected\nDETAIL:  Process {n} waits for ShareLock on transaction "
    '88{n}; blocked by process 4178.\nCONTEXT:  while updating tuple ({n},12) in relation "orders_staging"'
)  # fmt: skip
STATEMENT_TIMEOUT = (
    "psycopg.errors.QueryCanceled: canceling statement due to statement timeout\nSTATEMENT:  MERGE INTO dwh.fact_events "
    "USING staging.events_{n} ON (event_id)"
)
OUT_OF_MEMORY = "Pod worker-{n} was OOMKilled (exit code 137): container limit 4Gi, used 4.1Gi"
DISK_FULL = "OSError: [Errno 28] No space left on device: '/var/spool/etl/part-{n}.parquet'"
LOGIN_REFUSED = (
    "psycopg.OperationalError: connection to postgresql://loader:{password}@dwh-2.example.com:5432/freight failed: "
    'FATAL: password authentication failed for user "loader"'
)  # fmt: skip
UNREACHABLE = (
    "could not connect: host=replica-3.example.com port=5432 user=loader password={password} connect_timeout=10: "
    "timeout expired after {n}00 ms"
)
ACCESS_DENIED = (
    "botocore.exceptions.ClientError: An error occurred (AccessDenied) when calling the PutObject operation: key id "
    "{key_id} is not authorized to write s3://exports-example/{n}/"
)
MISSING_COLUMN = (
    "Database Error in model fct_revenue (models/marts/finance/fct_revenue.sql)\n  column o.discount_code does not "
    'exist\n  LINE 14:     o.discount_code,\n  HINT:  Perhaps you meant to reference the column "o.discount_id".'
)  # fmt: skip
STALE = "Freshness check failed: max(loaded_at) of raw.orders is {n} minutes old, wanted under 90"
DUPLICATES = "Test unique_claims_claim_id failed: got {n} results, configured to fail if != 0"
LICENCE_EXPIRED = "SOAP fault from https://cards.example.com/ws: client certificate expired; request {n} was refused"
BAD_MESSAGE = "HL7 parse error in message {n}: segment PID-3 is empty; 1 of 214 messages of {at} could not be read"
DRIFT = "terraform plan: 2 to change, 1 to destroy (aws_security_group_rule.ingress_{n}); exit code 2"
REGRESSION = "FAILED tests/test_routes.py::test_depot_{n} - AssertionError: cost 1.07x of baseline, allowed 1.05x"
BROKEN_MODEL = "Compilation Error in model stg_web__sessions: 'ref' to node 'base_sessions_{n}' which was not found"

BY_HAND = "stopped by on-call: a deployment was under way"
SUPERSEDED = "superseded by a newer push"
NOTHING_NEW = "no new files upstream"
NO_DELIVERY = "the partner takes no deliveries at weekends"
WEEKEND = frozenset({5, 6})

BERLIN, CHICAGO, LONDON, KOLKATA = "Europe/Berlin", "America/Chicago", "Europe/London", "Asia/Kolkata"

# ---- The fleet ----------------------------------------------------------------------------------------------------
# name, platform, type, when, owner, seconds, rows, story
_RETAIL = (
    DemoPipeline(
        "shopify_orders_ingest", "airflow", "ingestion", _cron("*/30 * * * *", BERLIN), "data-platform", 140, 1_850,
        (hiccups(0.012, TIMEOUT, RATE_LIMIT, rerun=0.8),),
        description="Orders and refunds of all shops", tags=("orders", "tier-1"), success_target=99.0, growth=0.6,
    ),
    DemoPipeline(
        "stripe_payments_ingest", "airflow", "ingestion", _cron("5 * * * *", BERLIN), "data-platform", 95, 620,
        (outage(_ago(41), TIMEOUT, ended=_ago(40.8)), outage(_ago(hours=7), UNREACHABLE, ended=_ago(hours=-16))),
        description="Newly failing", tags=("payments", "tier-1"), success_target=99.5, growth=0.4,
    ),
    DemoPipeline(
        "erp_stock_levels", "airflow", "ingestion", _each(15), "supply-chain", 70, 4_100,
        (hiccups(0.09, TIMEOUT, GATEWAY, DEADLOCK, rerun=0.3),),
        description="Flaky: the ERP's gateway drops connections", tags=("stock",), success_target=97.0, growth=0.05,
    ),
    DemoPipeline(
        "clickstream_sessions", "dagster", "transform", _cron("0 * * * *", BERLIN), "web-analytics", 5_700, 2_400_000,
        spread=0.05, description="Always one under way", tags=("web",), growth=0.35,
    ),
    DemoPipeline(
        "dbt_core_models", "dbt", "transform", _cron("15 */2 * * *", BERLIN), "analytics-engineering", 640, 880_000,
        (slower(1.9, _ago(75)), hiccups(0.015, STATEMENT_TIMEOUT)),
        description="Gets slower week by week", tags=("dbt", "tier-1"), success_target=98.0, growth=0.5,
    ),
    DemoPipeline(
        "dbt_core_models", "dbt", "transform", _cron("0 4 * * *", BERLIN), "analytics-engineering", 420, 52_000,
        (hiccups(0.12, BROKEN_MODEL, rerun=0.0),), environment="staging", tags=("dbt",),
    ),
    DemoPipeline(
        "dbt_finance_marts", "dbt", "transform", _cron("30 5 * * *", BERLIN), "finance-analytics", 900, 310_000,
        (outage(_ago(9), MISSING_COLUMN),),
        description="Failing since a column was renamed upstream", tags=("dbt", "finance"), success_target=99.0,
    ),
    DemoPipeline(
        "dq_orders_freshness", "airflow", "quality", _cron("20 * * * *", BERLIN), "analytics-engineering", 25, None,
        (hiccups(0.17, STALE, rerun=0.0),), description="Flaky", tags=("quality",), success_target=95.0,
    ),
    DemoPipeline(
        "export_google_ads_audiences", "airflow", "export", _cron("0 7 * * *", BERLIN), "marketing", 380, 96_000,
        (skipped(NO_DELIVERY, weekdays=WEEKEND), hiccups(0.03, RATE_LIMIT)), tags=("ads",),
    ),
    DemoPipeline(
        "sap_daily_sales_export", "cron", "export", _cron("0 2 * * *", BERLIN, 60), "finance-analytics", 480, 41_000,
        (silent(_ago(4.5)),), description="Silent: its machine was rebuilt without its crontab", tags=("sap",),
    ),
    DemoPipeline(
        "dbt_slim_ci", "gitlab_ci", "quality", _each(30), "analytics-engineering", 340, None,
        (hiccups(0.14, BROKEN_MODEL), canceled(0.08, SUPERSEDED)), environment="dev", has_schedule=False,
        description="One shared runner: always one in the queue", tags=("ci",), wait=(1_900, 2_300),
    ),
    DemoPipeline(
        "loyalty_points_ingest", "airflow", "ingestion", _cron("*/30 * * * *", BERLIN), "crm", 60, 340,
        (new(_ago(hours=10)),), description="Brand-new", tags=("loyalty", "new"),
    ),
)  # fmt: skip

_FREIGHT = (
    DemoPipeline(
        "telematics_gps_ingest", "prefect", "ingestion", _each(15), "fleet-data", 55, 18_500,
        (hiccups(0.006, TIMEOUT, rerun=0.9), canceled(0.002, BY_HAND)),
        description="Positions of all lorries", tags=("gps", "tier-1"), success_target=99.0, growth=0.3,
    ),
    DemoPipeline(
        "eta_model_features", "prefect", "transform", _cron("10 * * * *", CHICAGO), "data-science", 520, 74_000,
        (outage(_ago(3.5), OUT_OF_MEMORY, ended=_ago(hours=20)),),
        description="Recovered", tags=("ml",), success_target=97.0,
    ),
    DemoPipeline(
        "port_arrivals_scrape", "prefect", "ingestion", _each(30), "fleet-data", 210, 1_200,
        (hiccups(0.13, GATEWAY, TIMEOUT, rerun=0.4), skipped(NOTHING_NEW, rate=0.04)),
        description="Flaky: a website that was not made for this", tags=("ports",), success_target=90.0,
    ),
    DemoPipeline(
        "fuel_card_statements", "custom", "ingestion", _cron("0 6 * * *", CHICAGO, 60), "finance-ops", 160, 5_600,
        (outage(_ago(21), LICENCE_EXPIRED),), description="Failing for three weeks", tags=("finance", "vendor"),
    ),
    DemoPipeline(
        "dispatch_db_replication", "dagster", "ingestion", _each(30), "data-platform", 240, 132_000,
        (outage(_ago(3), LOGIN_REFUSED),), description="Failing since a password was rotated", tags=("tier-1",),
        success_target=99.0,
    ),
    DemoPipeline(
        "postgres_backup_check", "cron", "healthcheck", _cron("45 4 * * *", CHICAGO, 60), "data-platform", 310, None,
        (hiccups(0.03, DISK_FULL, rerun=0.0),), tags=("backup",), success_target=100.0,
    ),
    DemoPipeline(
        "edi_214_inbound", "custom", "ingestion", _each(30, 15), "fleet-data", 35, 260,
        (silent(_ago(hours=9)),), description="Silent since today", tags=("edi", "vendor"),
    ),
    DemoPipeline(
        "netsuite_invoice_export", "dagster", "export", _cron("0 18 * * 1-5", CHICAGO), "finance-ops", 440, 3_300,
        (hiccups(0.04, ACCESS_DENIED), canceled(0.05, BY_HAND)), tags=("finance",), growth=0.1,
    ),
    DemoPipeline(
        "route_optimisation_backtest", "github_actions", "other", _cron("25 * * * *", CHICAGO), "data-science", 1_500, None,
        (on_demand(0.35), hiccups(0.2, REGRESSION, rerun=0.7), canceled(0.06, SUPERSEDED)),
        environment="staging", has_schedule=False, description="On every push", tags=("ci", "ml"),
    ),
    DemoPipeline(
        "customs_documents_ocr", "dagster", "transform", None, "data-science", 0, None, environment="staging",
        description="Without any run as yet", tags=("ml", "new"),
    ),
)  # fmt: skip

_HEALTH = (
    DemoPipeline(
        "hl7_admissions_ingest", "custom", "ingestion", _each(60), "integration", 80, 2_150,
        (hiccups(0.02, BAD_MESSAGE, rerun=0.0),), tags=("hl7", "tier-1"), success_target=98.0, growth=0.1,
    ),
    DemoPipeline(
        "claims_gateway_check", "airflow", "healthcheck", _each(30), "claims", 12, None,
        (hiccups(0.01, GATEWAY, rerun=0.0),), tags=("claims",), success_target=99.0,
    ),
    DemoPipeline(
        "lab_results_ingest", "airflow", "ingestion", _cron("35 * * * *", LONDON), "integration", 190, 9_400,
        (hiccups(0.01, TIMEOUT), outage(_ago(hours=30), DISK_FULL, attempts=3)),
        description="Failing, each run three times", tags=("lab", "tier-1"), success_target=99.0,
    ),
    DemoPipeline(
        "patient_360_build", "dagster", "transform", _cron("0 1 * * *", LONDON), "analytics", 3_900, 640_000,
        (hiccups(0.02, OUT_OF_MEMORY),), tags=("patient",), success_target=98.0, growth=0.15,
    ),
    DemoPipeline(
        "cohort_refresh", "prefect", "transform", _cron("0 5 * * 1", LONDON), "research", 2_600, 18_000,
        (outage(_ago(13.5), STATEMENT_TIMEOUT, attempts=2),), description="Weekly, and failing", tags=("research",),
    ),
    DemoPipeline(
        "deidentified_research_export", "gitlab_ci", "export", _cron("30 22 * * *", KOLKATA), "research", 720, 27_000,
        (skipped(NOTHING_NEW, rate=0.1), hiccups(0.02, ACCESS_DENIED)), tags=("research", "export"),
    ),
    DemoPipeline(
        "dq_claims_reconciliation", "dbt", "quality", _cron("0 */6 * * *", LONDON), "claims", 260, None,
        (hiccups(0.2, DUPLICATES, rerun=0.0),), description="Flaky", tags=("quality", "claims"), success_target=95.0,
    ),
    DemoPipeline(
        "terraform_drift_check", "github_actions", "healthcheck", _cron("17 */6 * * *", "UTC"), "platform", 130, None,
        (hiccups(0.06, DRIFT), skipped(NOTHING_NEW, rate=0.03)), environment="dev", tags=("infra",),
    ),
)  # fmt: skip

CLIENTS = (
    DemoClient(
        "alderbrook-retail", "Alderbrook Retail", ("retail", "eu", "gold"), _RETAIL,
        (
            DemoRule("on_failure", "email", "payments-oncall@example.com", pipeline="stripe_payments_ingest"),
            DemoRule("consecutive_failures", "email", "data-oncall@example.com", threshold=3),
            DemoRule("failure_rate", "slack", "@retail-data", "erp_stock_levels", threshold=20, window_minutes=360),
        ),
    ),
    DemoClient(
        "meridian-freight", "Meridian Freight Lines", ("logistics", "us"), _FREIGHT,
        (
            DemoRule("failures_in_window", "email", "fleet-data@example.com", threshold=5, window_minutes=60),
            DemoRule("on_failure", "webhook", "https://alerts.example.com/incoming", "postgres_backup_check", is_enabled=False),
        ),
    ),
    DemoClient(
        "kestrel-health", "Kestrel Health Analytics", ("healthcare", "uk", "regulated"), _HEALTH,
        (DemoRule("consecutive_failures", "email", "integration@example.com", threshold=2),),
    ),
)  # fmt: skip
