"""Writes libvirt's documents from the tables in ``../facts``.  Used by ``generate.py`` only."""
