"""The gateway as its controller sees it: engines, certificates, and the keys of those who may use it."""
