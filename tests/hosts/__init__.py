"""The tests for two hosts of one's own, on which KVM is real: ``make rig-test HOSTS="uri1 uri2"``."""
