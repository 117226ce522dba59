"""How the hosts are paid for, and what AWS promises in return."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pulumi
import pulumi_aws as aws

from rackllama.host.errors import RackllamaError
from rackllama.provision.aws.labels import Labels


@dataclass(frozen=True)
class OnDemand:
    """By the second at the listed price, for as long as one likes, where AWS has one to give."""

    usage: ClassVar[str] = "on-demand"
    can_stop: ClassVar[bool] = True
    has_room_for_two: ClassVar[bool] = True

    def launch_options(self) -> Mapping[str, Any]:
        """What an instance is told of it."""
        return {}


@dataclass(frozen=True)
class Spot:
    """At the market's price, and ended by AWS with a warning of two minutes; what lay in the instance store is lost.

    It is asked for once: after AWS ended it, the next `pulumi up --refresh` asks again.
    """

    usage: ClassVar[str] = "spot"
    can_stop: ClassVar[bool] = False  # AWS stops none that was asked for once, it only ends it
    has_room_for_two: ClassVar[bool] = True

    def launch_options(self) -> Mapping[str, Any]:
        """What an instance is told of it."""
        once = {"spot_instance_type": "one-time", "instance_interruption_behavior": "terminate"}
        return {"instance_market_options": {"market_type": "spot", "spot_options": once}}


@dataclass(frozen=True)
class CapacityBlock:
    """Of a block that was bought before, paid in full in advance: AWS ends the hosts from 30 minutes before its end."""

    usage: ClassVar[str] = "capacity-block"
    can_stop: ClassVar[bool] = True
    has_room_for_two: ClassVar[bool] = False  # so that a host goes before another takes its place
    reservation_id: pulumi.Input[str]

    def launch_options(self) -> Mapping[str, Any]:
        """What an instance is told of it."""
        return {
            "instance_market_options": {"market_type": "capacity-block"},
            "capacity_reservation_specification": {
                "capacity_reservation_target": {"capacity_reservation_id": self.reservation_id}
            },
        }


Capacity = OnDemand | Spot | CapacityBlock


@dataclass(frozen=True)
class BuyCapacityBlockArgs:
    """The offering is bought as it is, with `is_confirmed` alone: a person has seen its hours and its fee."""

    labels: Labels
    offering_id: str
    is_confirmed: bool = False

    def __post_init__(self) -> None:
        if not self.is_confirmed:
            raise RackllamaError(
                f"the capacity block {self.offering_id} is paid in full at once, and nothing gives the money back",
                "look at it: aws ec2 describe-capacity-block-offerings; then set buy_capacity_block to true",
            )


class BuyCapacityBlock(pulumi.ComponentResource):
    """Buys a capacity block. Costs the offering's whole fee at once, whether it is used or not.

    Survives a destroy: AWS takes none back. It is protected, so that `pulumi destroy` stops at it; drop it from the
    state by `pulumi state unprotect` when its time is over.
    """

    reservation_id: pulumi.Output[str]

    def __init__(self, name: str, args: BuyCapacityBlockArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rackllama:aws:BuyCapacityBlock", name, None, opts)
        block = aws.ec2.CapacityBlockReservation(
            name,
            capacity_block_offering_id=args.offering_id,
            instance_platform="Linux/UNIX",
            tags=args.labels.tags(name),
            # An offering is gone when it is bought: another id here would buy another block.
            opts=pulumi.ResourceOptions(parent=self, protect=True, ignore_changes=["capacity_block_offering_id"]),
        )
        self.reservation_id = block.id
        self.register_outputs({"reservation_id": self.reservation_id})
