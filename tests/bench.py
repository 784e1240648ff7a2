"""The speed in one run, beside libvirt and libraries that answer the same: ``make bench``. Tables for the README."""

from __future__ import annotations

from tests import bench_lattice, bench_libvirt, bench_pools


def main() -> None:
    """Prints the tables."""
    bench_libvirt.main()
    bench_lattice.main()
    bench_pools.main()


if __name__ == "__main__":
    main()
