"""From answers to acts: what ties a domain to its host, what stands in its way, and the move itself."""

from vmcompat.migration.apply import AppliedBaseline, CpuAnswer, apply_baseline
from vmcompat.migration.convoy import EvacuationRun, EvacuationStoppedError
from vmcompat.migration.domain import Domain, read_domain
from vmcompat.migration.handle import MigrationJob
from vmcompat.migration.journal import log
from vmcompat.migration.migrate import MigrationPlan, plan_migration
from vmcompat.migration.order import MigrationFailedError, MigrationResult
from vmcompat.migration.policy import POLICIES, Policy
from vmcompat.migration.proofs import checks
from vmcompat.migration.rollout import Rollout
from vmcompat.migration.transfer import Transfer

__all__ = [
    "POLICIES",
    "AppliedBaseline",
    "CpuAnswer",
    "Domain",
    "EvacuationRun",
    "EvacuationStoppedError",
    "MigrationFailedError",
    "MigrationJob",
    "MigrationPlan",
    "MigrationResult",
    "Policy",
    "Rollout",
    "Transfer",
    "apply_baseline",
    "checks",
    "log",
    "plan_migration",
    "read_domain",
]
