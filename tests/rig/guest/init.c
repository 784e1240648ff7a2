/* The whole user space of the proof-of-life guest: PID 1, statically linked, alone in the initrd.
 *
 * It shows on the serial console that CPU and memory outlive a migration. tests/rig/console.py reads:
 *
 *   BOOT <boot id>                       once a boot; the kernel draws a new id at every boot
 *   CPU <field> <value>                  vendor_id, model name and flags, as the kernel sees them
 *   READY memory=<MiB> dirty=<MiB/s>     the buffer is filled
 *   TICK <n> boot=<boot id> up=<s> bad=<words> checked=<pages> dirtied=<pages> pause=<ms>
 *
 * A hole in the ticks, a second boot id or bad > 0 means that the guest was lost, started again or
 * damaged. A tick number that comes twice means that two copies of it ran.
 *
 * Kernel command line: vm.memory=MiB vm.dirty=MiB-per-second vm.tick=milliseconds
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 4096,
    PAGE_WORDS = PAGE_BYTES / sizeof(uint64_t),
    STRIDE = 64,                   /* eight marked words a page: enough to notice a lost page, cheap under TCG */
    PAGES_PER_MIB = (1 << 20) / PAGE_BYTES,
    SLICES_PER_SECOND = 50,        /* dirtying is spread over slices, so that the rate is even */
    SWEEP_TICKS = 8,               /* the whole buffer is read once in so many ticks, dirtied or not */
};

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* Every page holds a pattern of its number and its generation. The generations are kept apart from the
 * pages, so that a page which did not arrive, or arrived in an old state, disagrees with them. */
struct memory {
    long pages;
    uint64_t *words;
    uint32_t *generation;
    unsigned long bad, checked, dirtied;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void sleep_ns(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
    nanosleep(&t, NULL);
}

static void die(const char *what)
{
    printf("FAILED %s\n", what);
    fflush(stdout);
    for (;;)
        pause();                   /* PID 1 must not return: that panics the kernel and hides the line above */
}

static void read_line(const char *path, char *into, int size)
{
    FILE *file = fopen(path, "r");
    if (!file || !fgets(into, size, file))
        die(path);
    fclose(file);
    into[strcspn(into, "\n")] = '\0';
}

static long option(const char *command_line, const char *name, long otherwise)
{
    const char *found = strstr(command_line, name);
    return found ? atol(found + strlen(name)) : otherwise;
}

static void open_console(void)
{
    mount("proc", "/proc", "proc", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    int console = open("/dev/console", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(console, fd);
    setvbuf(stdout, NULL, _IOLBF, 0);
}

static void print_cpu(void)
{
    static const char *const fields[] = {"vendor_id", "model name", "flags"};
    char line[8192];
    FILE *cpuinfo = fopen("/proc/cpuinfo", "r");
    if (!cpuinfo)
        die("/proc/cpuinfo");
    while (fgets(line, sizeof line, cpuinfo) && line[0] != '\n') {      /* the first processor's paragraph */
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
            const char *value = strstr(line, ": ");
            if (value && !strncmp(line, fields[i], strlen(fields[i])) && line[strlen(fields[i])] == '\t')
                printf("CPU %s %s", fields[i], value + 2);
        }
    }
    fclose(cpuinfo);
}

static uint64_t mark(const struct memory *m, long page, int word)
{
    return (uint64_t)page * 1000003u + (uint64_t)word + m->generation[page] * UINT64_C(7);
}

static void write_page(struct memory *m, long page)
{
    for (int word = 0; word < PAGE_WORDS; word += STRIDE)
        m->words[page * PAGE_WORDS + word] = mark(m, page, word);
}

static void check_page(struct memory *m, long page)
{
    for (int word = 0; word < PAGE_WORDS; word += STRIDE)
        m->bad += m->words[page * PAGE_WORDS + word] != mark(m, page, word);
    m->checked++;
}

static struct memory fill_memory(long mib)
{
    struct memory m = {.pages = mib * PAGES_PER_MIB};
    m.words = mmap(NULL, (size_t)m.pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    m.generation = calloc((size_t)m.pages, sizeof *m.generation);
    if (m.words == MAP_FAILED || !m.generation)
        die("not enough memory for vm.memory");
    for (long page = 0; page < m.pages; page++)
        write_page(&m, page);
    return m;
}

static void dirty_pages(struct memory *m, long count)
{
    static long page;
    for (; count > 0; count--, page = (page + 1) % m->pages) {
        check_page(m, page);
        m->generation[page]++;
        write_page(m, page);
        m->dirtied++;
    }
}

static void sweep_pages(struct memory *m)
{
    static long page;
    for (long count = m->pages / SWEEP_TICKS; count > 0; count--, page = (page + 1) % m->pages)
        check_page(m, page);
}

int main(void)
{
    char command_line[4096], boot_id[64];

    open_console();
    read_line("/proc/cmdline", command_line, sizeof command_line);
    read_line("/proc/sys/kernel/random/boot_id", boot_id, sizeof boot_id);
    long mib = option(command_line, "vm.memory=", 16);
    long dirty = option(command_line, "vm.dirty=", 0);
    uint64_t tick_ns = (uint64_t)option(command_line, "vm.tick=", 250) * NS_PER_MS;

    printf("BOOT %s\n", boot_id);
    print_cpu();
    struct memory m = fill_memory(mib);
    printf("READY memory=%ld dirty=%ld\n", mib, dirty);

    uint64_t slice_ns = dirty ? NS_PER_S / SLICES_PER_SECOND : tick_ns;
    uint64_t last = now_ns(), next_tick = last, longest = 0;
    for (unsigned long number = 0;;) {
        uint64_t start = now_ns();
        if (start - last > longest)
            longest = start - last;
        last = start;
        if (start >= next_tick) {
            sweep_pages(&m);
            printf("TICK %lu boot=%s up=%.2f bad=%lu checked=%lu dirtied=%lu pause=%lu\n", number++, boot_id,
                   (double)start / (double)NS_PER_S, m.bad, m.checked, m.dirtied,
                   (unsigned long)(longest / NS_PER_MS));
            longest = 0;
            next_tick = start + tick_ns;
        }
        dirty_pages(&m, dirty * PAGES_PER_MIB / SLICES_PER_SECOND);
        uint64_t used = now_ns() - start;
        if (used < slice_ns)
            sleep_ns(slice_ns - used);
    }
}
