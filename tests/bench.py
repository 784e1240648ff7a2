"""The speed in one run, beside libvirt and libraries that answer the same: ``make bench``. Tables for the README."""

from __future__ import annotations

from tests import bench_lattice, bench_libvirt, bench_pools
from tests.bench_migration import migration_rows
from tests.bench_widgets import widget_rows


def main() -> None:
    """Prints the tables."""
    bench_libvirt.main()
    bench_lattice.main()
    bench_pools.main()
    print(*widget_rows(), sep="\n")
    print(*migration_rows(), sep="\n")


if __name__ == "__main__":
    main()
