"""Land a model on this machine by hand: from a path, an address or a name in the lock to one file."""
