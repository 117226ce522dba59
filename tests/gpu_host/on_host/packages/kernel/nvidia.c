#include <linux/module.h>
@BREAK@
MODULE_INFO(name, "nvidia");
MODULE_INFO(version, "@VERSION@");
MODULE_INFO(license, "@LICENSE@");
MODULE_INFO(alias, "pci:v000010DEd*sv*sd*bc03sc02i00*");
MODULE_INFO(depends, "");
