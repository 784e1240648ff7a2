"""From answers to acts: what ties a domain to its host, what stands in its way, and the move itself."""

from vmcompat.migration.apply import AppliedBaseline, CpuAnswer, apply_baseline
from vmcompat.migration.domain import Domain, read_domain
from vmcompat.migration.migrate import MigrationPlan, plan_migration
from vmcompat.migration.order import MigrationFailedError, MigrationResult

__all__ = [
    "AppliedBaseline",
    "CpuAnswer",
    "Domain",
    "MigrationFailedError",
    "MigrationPlan",
    "MigrationResult",
    "apply_baseline",
    "plan_migration",
    "read_domain",
]
