"""Servers with a BMC that speaks Redfish: what they are, their power, and installing a system on them."""
