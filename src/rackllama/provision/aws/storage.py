"""Where models are kept when hosts go: a volume beside each host, or a bucket for all."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from rackllama.provision.aws.billing import billed
from rackllama.provision.aws.host import GpuHost
from rackllama.provision.aws.labels import Labels
from rackllama.provision.outputs import Cost

DEVICE = "/dev/sdm"  # the kernel shows NVMe names instead; role `storage` finds it by its volume id


@dataclass(frozen=True)
class ModelVolumeArgs:
    """A volume of `size_gib` for one host, or the one with `volume_id`, which an earlier stack left.

    With `is_kept` a destroy leaves it, with what is on it.
    """

    labels: Labels
    host: GpuHost
    size_gib: int
    is_kept: bool = True
    volume_id: str = ""


class ModelVolume(pulumi.ComponentResource):
    """An encrypted gp3 volume for models, at its host. Costs gp3's price for each GB and month, attached or not.

    It is made after its host and in its zone, so that a zone without capacity gets none. It outlives the host, and
    where it is kept a destroy as well: it is billed on until somebody deletes it, and a later stack takes it by its id.
    Before it is detached its host is stopped, so that nothing is half written, and the instance store is lost; a spot
    host, which cannot be stopped, has it taken away: a landing in its middle goes on from its journal.
    """

    volume_id: pulumi.Output[str]

    def __init__(self, name: str, args: ModelVolumeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rackllama:aws:ModelVolume", name, None, opts)
        self._name, self._args = name, args
        self.volume_id = pulumi.Output.from_input(args.volume_id or self._made().id)
        aws.ec2.VolumeAttachment(
            name,
            device_name=DEVICE,
            instance_id=args.host.instance_id,
            volume_id=self.volume_id,
            stop_instance_before_detaching=args.host.can_stop,
            force_detach=not args.host.can_stop,
            # A volume is at one host at a time: at the next one only when it is gone from this one.
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        self.register_outputs({"volume_id": self.volume_id})

    def costs(self) -> Sequence[Cost]:
        """The volume."""
        args = self._args
        kept = args.is_kept or bool(args.volume_id)
        if args.volume_id:
            return (Cost(f"model volume {self._name}", None, "month", kept, self.volume_id, "size not told here"),)
        note = "snapshots of it, where somebody makes them, are billed by the GB as well"
        volume = billed(
            f"model volume {self._name}, {args.size_gib} GiB",
            "gp3",
            args.size_gib,
            note,
            self.volume_id if kept else None,
        )
        return (volume,)

    def _made(self) -> aws.ebs.Volume:
        args = self._args
        return aws.ebs.Volume(
            self._name,
            availability_zone=args.host.zone,
            type="gp3",
            size=args.size_gib,
            encrypted=True,
            tags=args.labels.tags(self._name),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[args.host.instance], retain_on_delete=args.is_kept),
        )


@dataclass(frozen=True)
class ModelBucketArgs:
    """With `is_kept` a destroy leaves the bucket, with what is in it."""

    labels: Labels
    is_kept: bool = True


class ModelBucket(pulumi.ComponentResource):
    """An encrypted bucket that nobody reads but the stack's hosts: models are landed from it as s3://BUCKET/….

    Costs S3's price for each GB and month; what hosts of the region read through the endpoint of S3 is free. Where it
    is kept it survives a destroy; else a destroy fails while anything is in it, as S3 deletes no full bucket.
    """

    bucket: pulumi.Output[str]

    def __init__(self, name: str, args: ModelBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rackllama:aws:ModelBucket", name, None, opts)
        self._name, self._args = name, args
        kept = pulumi.ResourceOptions(parent=self, retain_on_delete=args.is_kept)
        bucket = aws.s3.Bucket(name, tags=args.labels.tags(name), opts=kept)
        aws.s3.BucketPublicAccessBlock(
            name,
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=kept,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=bucket.id,
            rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}],
            opts=kept,
        )
        self.bucket = bucket.id
        self.register_outputs({"bucket": self.bucket})

    def costs(self, landed_gb: float) -> Sequence[Cost]:
        """What a model of so many 10^9 bytes costs in it."""
        stored = billed(
            f"model bucket, with {landed_gb:.0f} GB in it",
            "s3",
            landed_gb,
            "and requests",
            self.bucket if self._args.is_kept else None,
        )
        return (stored,)
