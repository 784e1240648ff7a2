"""The fleet audit: what was found, how sure it is, and what to do, for somebody who has no Python."""
