/* Guest for KVM without a kernel: 32-bit protected mode, started by QEMU as a multiboot ELF, so that it runs where a stock
 * kernel does not. It dirties memory as its command line says, and sends a byte on its second serial port every 5 ms.
 *
 * Interrupts stay off. Time is the TSC, whose kHz is on the command line. A guest that stood still does not catch up.
 *
 *   khz=2400000 vmgate.workload=dirty,size=64,rate=20,pattern=random+fill,size=128
 *
 * size in MiB, rate in MiB/s, block in pages (written together, as one huge fill). Patterns: random, hotcold, zipf, sweep,
 * phases (four seconds of eight); `rewrite` as last word writes the value that is there already. `fill` writes once, `zero`
 * touches pages and leaves them zero. */

typedef unsigned int u32;
typedef unsigned long long u64;

#define PAGE 4096u
#define FIRST (16u << 20)
#define MOST_AREAS 6
enum { CONSOLE = 0x3f8, HEARTBEAT = 0x2f8 };

__attribute__((section(".multiboot"), used)) static const u32 header[] = {0x1badb002, 0, -0x1badb002u};

struct area {
  u32 first, pages, block, pattern, rewrite, next;
  u32 owed, step; /* in 1/65536 of a block; a step a unit of time */
};

static struct area areas[MOST_AREAS];
static u32 count, state = 2463534242u, value = 1;

static void out(u32 port, u32 byte) { __asm__ volatile("outb %b0, %w1" ::"a"(byte), "Nd"(port)); }
static u32 now(void) {
  u32 low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return low >> 10 | high << 22;
}
static void fill(u32 address, u32 with, u32 words) {
  __asm__ volatile("rep stosl" : "+D"(address), "+c"(words) : "a"(with) : "memory");
}
static u32 divide(u64 by_this, u32 divisor) {
  u32 quotient, rest;
  __asm__("divl %4" : "=a"(quotient), "=d"(rest) : "a"((u32)by_this), "d"((u32)(by_this >> 32)), "r"(divisor));
  return quotient;
}
static u32 chance(void) {
  state ^= state << 13;
  state ^= state >> 17;
  return state ^= state << 5;
}
static u32 below(u32 limit) { return (u32)((u64)chance() * limit >> 32); }

static int begins(const char *text, const char *with) {
  while (*with)
    if (*text++ != *with++) return 0;
  return 1;
}
/* The number after KEY in the words of one workload, times a thousand; `otherwise` where there is none. */
static u32 number(const char *text, const char *key, u32 otherwise) {
  for (; *text && *text != ' ' && *text != '+'; text++) {
    if (*text != ',' || !begins(text + 1, key)) continue;
    u32 whole = 0, part = 0, digit = 100;
    for (text++; *key; key++) text++;
    for (; *text >= '0' && *text <= '9'; text++) whole = whole * 10 + *text - '0';
    if (*text == '.')
      for (text++; *text >= '0' && *text <= '9'; text++, digit /= 10) part += (*text - '0') * digit;
    return whole * 1000 + part;
  }
  return otherwise;
}
static u32 pattern_of(const char *text) {
  for (; *text && *text != ' ' && *text != '+'; text++)
    if (begins(text, "pattern=")) return text[8];
  return 'r';
}
static int has(const char *text, const char *word) {
  for (; *text && *text != ' ' && *text != '+'; text++)
    if (begins(text, word)) return 1;
  return 0;
}

static u32 place(struct area *area) {
  u32 blocks = area->pages / area->block, tenth = blocks / 10 + 1, bits = 0;
  switch (area->pattern) {
    case 's':
      if (++area->next >= blocks) area->next = 0;
      return area->next;
    case 'h':
      return chance() % 10 ? below(tenth) : below(blocks);
    case 'z': /* log-uniform over the ranks: Zipf with exponent 1 */
      while (2u << bits <= blocks) bits++;
      return chance() & ((1u << below(bits + 1)) - 1);
    default:
      return below(blocks);
  }
}

static void write_block(struct area *area) {
  u32 address = area->first + place(area) * area->block * PAGE;
  fill(address, area->rewrite ? 7 : ++value, area->block * (PAGE / 4));
}

static void say(const char *text) {
  while (*text) out(CONSOLE, *text++);
}

static void take(const char *text, u32 units_a_second) {
  static u32 free = FIRST;
  struct area *area = &areas[count];
  area->first = free;
  area->pages = number(text, "size=", 0) / 1000 * 256;
  area->block = number(text, "block=", 1000) / 1000;
  area->pattern = pattern_of(text);
  area->rewrite = has(text, ",rewrite");
  if (begins(text, "zero"))
    fill(free, 0, area->pages * (PAGE / 4));
  else
    fill(free, 7, area->pages * (PAGE / 4));
  free += area->pages * PAGE;
  if (!begins(text, "dirty") || !area->pages) return;
  u32 pages_a_second = divide((u64)number(text, "rate=", 0) * 256, 1000);
  u32 blocks_a_second = divide((u64)pages_a_second << 8, area->block); /* in 1/256 */
  area->step = divide((u64)blocks_a_second << 8, units_a_second);
  if (count + 1 < MOST_AREAS) count++;
}

__attribute__((used)) static void run(const u32 *boot) {
  const char *text = (const char *)boot[4];
  u32 khz = 2000000, at;
  for (const char *word = text; *word; word++)
    if (begins(word, "khz=")) {
      khz = 0;
      for (word += 4; *word >= '0' && *word <= '9'; word++) khz = khz * 10 + *word - '0';
      break;
    }
  u32 units = divide((u64)khz * 1000, 1024), beat = units / 200, most = units / 50, phase = units * 4;
  for (const char *word = text; *word; word++)
    if (begins(word, "vmgate.workload="))
      for (word += 16;; word++) {
        take(word, units);
        while (*word && *word != ' ' && *word != '+') word++;
        if (*word != '+') break;
      }
  say("guest ready\n");
  u32 last = now(), last_beat = last, since = last;
  for (;;) {
    u32 time = now(), passed = time - last;
    last = time;
    if (passed > most) passed = most;
    if (time - last_beat >= beat) {
      last_beat = time - last_beat > 4 * beat ? time : last_beat + beat;
      out(HEARTBEAT, '.');
    }
    if (time - since >= 2 * phase) since = time;
    for (at = 0; at < count; at++) {
      struct area *area = &areas[at];
      if (area->pattern == 'p' && time - since >= phase) continue;
      area->owed += passed * area->step;
      u32 budget = 8;
      while (area->owed >= 65536 && budget--) {
        write_block(area);
        area->owed -= 65536;
      }
      if (area->owed > 65536u * 64) area->owed = 65536u * 64;
    }
  }
}

__attribute__((naked, used)) void _start(void) {
  __asm__ volatile("cli; cld; movl $stack_end, %esp; push %ebx; call run");
}
__attribute__((used)) static char stack[16384];
__asm__(".set stack_end, stack + 16384");
