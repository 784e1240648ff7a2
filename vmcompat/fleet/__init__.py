"""From XML documents to frames: reading, the CPU map, and the fleet itself."""
