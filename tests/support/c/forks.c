#define _GNU_SOURCE
/* Forks children that exit at once, for argv[1] milliseconds, as fast as one process can; prints how many. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv) {
  long count = 0, end;
  if (argc < 2) return 2;
  end = now_ms() + atol(argv[1]);
  while (now_ms() < end) {
    int pid = vfork(); /* the kernel tells of it as of any fork, and it is three times as fast */
    if (pid == 0) _exit(0);
    if (pid < 0) continue;
    waitpid(pid, 0, 0);
    count++;
  }
  printf("%ld\n", count);
  return 0;
}
