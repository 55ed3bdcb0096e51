static volatile char pages[96 * 4096] __attribute__((aligned(4096)));
void _start(void)
{
	for (int round = 0; round < 3; round++)
		for (int page = 0; page < 96; page++)
			(void)pages[page << 12];
	__asm__ volatile("syscall" : : "a"(60), "D"(0));
}
