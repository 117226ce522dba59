"""Hosts to try everything on: containers that boot systemd, and the artefacts they install."""
