"""From frames to answers: what a group of hosts has in common, what it costs, and who it runs on.

Where to begin: ``common`` answers for one group, ``maximal`` finds all groups worth a baseline, ``pools`` the best few.

- One group: ``answer`` is libvirt's, by its ``choice`` of a model; ``hypervisor`` is what emulators allow of it,
  ``card`` how it looks, ``verify`` a real libvirt's word. ``groups`` does many at once.
- What features mean: ``meanings``; what they are worth: ``worth``; what old libvirts have no name for: ``unreported``.
- Named models: ``named`` on hosts, as far as ``usable`` knows; ``candidates`` and ``generations`` for what is bought.
- Comparing: ``compare`` a guest's CPU, ``conforms`` what is deployed, ``twins`` and ``identical`` what should be equal,
  ``drift`` two looks, with their ``causes``.
- All groups: ``parts`` makes a fleet small, ``lattice`` walks it by compiled ``loops``, ``sets`` keeps the answers,
  ``frontier`` keeps the best, ``veto`` tells who is to blame.
- Pools: ``demands`` on some ``ground``, solved by ``partition`` or by ``program`` with its ``pricing``; ``outcome`` has
  names again, ``conflict`` what cannot be. ``what_if`` asks of ``supposed`` hosts.
"""
