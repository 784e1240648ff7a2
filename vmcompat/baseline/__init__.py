"""From frames to answers: what a group of hosts has in common, what it costs, and who it runs on."""
