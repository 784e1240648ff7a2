"""CPU baselines of many hosts in libvirt's own terms."""
