"""From answers to acts: what ties a domain to its host, what stands in its way, and the move itself.

Where to begin: ``migrate`` plans one move, ``preflight`` says what stands in its way, ``run`` does it.

- What guests are: ``domain`` with its ``devices`` and what makes it ``immovable``; many: ``domains``, read in
  ``pieces``; what they need: ``demand``.
- What is asked of hosts: ``observe`` looks at both ends, ``inventory`` at what guests lean on.
- The checks: ``preflight`` calls those of ``fit``, ``travel``, ``between``, ``attached``, ``disks`` and ``blockers``;
  ``skews`` is a table of what versions are known to change, ``proofs`` of where each check was seen to be true.
- The same checks for many: ``survey`` asks live hosts; ``kinds``, ``reach`` and ``canary`` ask documents.
- A baseline in force: ``apply`` for one guest, ``ledger`` for all, ``rollout`` does it.
- One move: ``transfer`` and ``policy`` say how, ``forecast`` whether; ``order`` and ``account`` are what a run is told
  and what it keeps; it goes through ``cycle`` and ``job``, tells ``progress`` and the ``journal``; ``handle`` runs it
  in the background, ``runbook`` writes it down for people.
- When it goes wrong: ``whereabouts``, ``aftermath`` and ``recover``; ``standby`` if this process dies; ``explain`` with
  its ``wordings`` for errors from elsewhere.
- Many moves: ``evacuate`` makes the plan with ``placing``, ``room`` and ``assignment``, ``losses`` asks what if;
  ``itinerary`` and ``convoy`` carry it out, ``board`` shows it.
"""

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
