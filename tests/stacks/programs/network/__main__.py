"""A machine with a volume in a network of its own."""

import pulumi
import pulumi_aws as aws

config = pulumi.Config()
zone = config.require("zone")
provider = aws.Provider("here", region="us-east-1", default_tags={"tags": {"project": "network"}})
own = pulumi.ResourceOptions(provider=provider)
vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16", enable_dns_hostnames=True, opts=own)
block = f"10.0.{ord(zone[-1]) - ord('a')}.0/24"  # its own in each zone: a new subnet is made before the old one goes
subnet = aws.ec2.Subnet("subnet", vpc_id=vpc.id, cidr_block=block, availability_zone=zone, opts=own)
group = aws.ec2.SecurityGroup("group", vpc_id=vpc.id, opts=own)
aws.vpc.SecurityGroupIngressRule(
    "https", security_group_id=group.id, ip_protocol="tcp", from_port=443, to_port=443, cidr_ipv4="10.0.0.0/8", opts=own
)
ami = aws.ec2.get_ami(owners=["099720109477"], most_recent=True, opts=pulumi.InvokeOptions(provider=provider))
machine = aws.ec2.Instance(
    "machine", ami=ami.id, instance_type="t3.micro", subnet_id=subnet.id, vpc_security_group_ids=[group.id], opts=own
)
volume = aws.ebs.Volume("models", availability_zone=machine.availability_zone, size=10, encrypted=True, opts=own)
aws.ec2.VolumeAttachment("models", device_name="/dev/sdf", volume_id=volume.id, instance_id=machine.id, opts=own)
ubuntu = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
pulumi.export("ubuntu", aws.ssm.get_parameter(name=ubuntu, opts=pulumi.InvokeOptions(provider=provider)).insecure_value)
pulumi.export("address", machine.private_ip)
pulumi.export("instance", machine.id)
