"""The lab depot: a cache of the real artefacts that lab hosts install, filled once, laid out and served as a mirror."""
