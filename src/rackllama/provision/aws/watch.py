"""What keeps a forgotten host from costing a fortune: a budget that warns, and an alarm that stops what is idle."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from rackllama.host.errors import RackllamaError
from rackllama.provision.aws.billing import billed
from rackllama.provision.aws.host import GpuHost
from rackllama.provision.aws.labels import STACK, Labels
from rackllama.provision.aws.role import partition
from rackllama.provision.outputs import Cost

# An alarm that counts whole hours looks at the last sixty minutes from the first of a host's life on.
PERIOD_SECONDS = 300
PERIODS_AN_HOUR = 3600 // PERIOD_SECONDS
MOST_HOURS = 24  # an alarm looks back on one day at most


@dataclass(frozen=True)
class BudgetArgs:
    """US dollars a month, and who is told by e-mail: at 50 and 100 % spent, and when 100 % are foreseen."""

    labels: Labels
    monthly_usd: int
    email: str

    def __post_init__(self) -> None:
        if self.monthly_usd < 1:
            raise RackllamaError("no budget is set, and a host is easily forgotten", "set monthly_budget_usd")
        if "@" not in self.email:
            raise RackllamaError(f"budget_email is {self.email!r}", "set budget_email to whom the alarm is sent")


class Budget(pulumi.ComponentResource):
    """An alarm on what this stack spends; it stops nothing, and AWS tells costs some hours late. It counts by the tag
    rackllama-stack, which the account's owner has to activate as a cost allocation tag once. Costs nothing; nothing of
    it survives a destroy.
    """

    def __init__(self, name: str, args: BudgetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rackllama:aws:Budget", name, None, opts)
        aws.budgets.Budget(
            name,
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(args.monthly_usd),
            limit_unit="USD",
            cost_filters=[{"name": "TagKeyValue", "values": [f"user:{STACK}${args.labels.stack}"]}],
            notifications=[
                {
                    "comparison_operator": "GREATER_THAN",
                    "notification_type": kind,
                    "threshold": share,
                    "threshold_type": "PERCENTAGE",
                    "subscriber_email_addresses": [args.email],
                }
                for kind, share in (("ACTUAL", 50), ("ACTUAL", 100), ("FORECASTED", 100))
            ],
            tags=args.labels.tags(name),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})


@dataclass(frozen=True)
class AutoStopArgs:
    """The host stops after `hours` in which it sent less than `megabytes` (10^6) an hour, in each five minutes of them.

    What it sends is the signal, as AWS sees no GPU without an agent on the host, and one core of 192 that feeds a GPU
    is half a percent of the processor. A model that lands makes a host send receipts, and an answer sends some hundred
    bytes for each token; but a host that only computes, as in a long benchmark of its own, looks idle. The threshold
    was not measured on AWS: watch NetworkOut of your host first.
    """

    labels: Labels
    region: str
    host: GpuHost
    hours: int
    megabytes: int = 20

    def __post_init__(self) -> None:
        require_hours(self.hours)


def require_hours(hours: int) -> None:
    """Raise RackllamaError unless an alarm can look back so far."""
    if not 1 <= hours <= MOST_HOURS:
        raise RackllamaError(
            f"auto_stop_hours is {hours}", f"set it to 1 to {MOST_HOURS}, or to 0 for a host that never stops"
        )


class AutoStop(pulumi.ComponentResource):
    """Stops an idle host. Costs an alarm; a stopped host costs its volumes only, and loses its instance store.

    Nothing starts it again but `aws ec2 start-instances`. Nothing of it survives a destroy.
    """

    def __init__(self, name: str, args: AutoStopArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rackllama:aws:AutoStop", name, None, opts)
        aws.cloudwatch.MetricAlarm(
            name,
            alarm_description=f"Stops {name} when it has been idle for {args.hours} hours",
            namespace="AWS/EC2",
            metric_name="NetworkOut",
            dimensions={"InstanceId": args.host.instance_id},
            statistic="Sum",
            period=PERIOD_SECONDS,
            evaluation_periods=args.hours * PERIODS_AN_HOUR,
            comparison_operator="LessThanThreshold",
            threshold=args.megabytes * 1e6 / PERIODS_AN_HOUR,
            treat_missing_data="notBreaching",  # a host that says nothing is starting, or stopped already
            alarm_actions=[f"arn:{partition(args.region)}:automate:{args.region}:ec2:stop"],
            tags=args.labels.tags(name),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})

    def costs(self) -> Sequence[Cost]:
        """The alarm."""
        return (billed("alarm that stops an idle host", "alarm"),)
