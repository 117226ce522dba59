"""The table of every artefact that is downloaded, and the mirror it can be fetched from."""
