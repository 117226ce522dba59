/* Stand-in for the kernel's header: what a module tells of itself goes to the section that modinfo reads. */
#define MODULE_INFO(tag, text) \
	static const char about_##tag[] __attribute__((section(".modinfo"), used, aligned(1))) = #tag "=" text
MODULE_INFO(vermagic, "@KERNEL@ SMP mod_unload ");
MODULE_INFO(srcversion, "STANDIN@KERNEL@");
