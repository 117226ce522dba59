"""A test double of the Pulumi CLI and its engine, for machines where the real one cannot be had.

It runs unmodified programs with the real Python SDK, over the SDK's own gRPC services, and plans and makes each step in
a simple form. It is not the real engine and says so: `pulumi version` prints NAME. docs/stack-tests.md tells what it
leaves out.
"""

NAME = "rackllama-test-double-of-pulumi"
