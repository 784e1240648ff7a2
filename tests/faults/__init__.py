"""Breaks migrations on the rig in every way that real ones break, and judges what is left: ``make faults``.

A trial is one migration that vmcompat plans and runs, by a client process of its own, one fault at one moment of it,
and a verdict on both hosts afterwards. :mod:`~tests.faults.faults` is the list of what is done,
:mod:`~tests.faults.moments` says when, :mod:`~tests.faults.judge` what has to hold, and
:mod:`~tests.faults.table` keeps the results.
"""
