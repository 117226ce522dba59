"""A double of the aws provider plugin, which makes what it is asked for on moto's server, and nowhere else."""
