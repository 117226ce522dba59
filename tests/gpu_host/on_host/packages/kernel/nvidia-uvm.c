#include <linux/module.h>
MODULE_INFO(name, "nvidia_uvm");
MODULE_INFO(version, "@VERSION@");
MODULE_INFO(license, "@LICENSE@");
MODULE_INFO(depends, "nvidia");
