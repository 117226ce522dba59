"""GPU hosts on AWS: components that take frozen Args and make what they name, with what each costs and what stays."""
