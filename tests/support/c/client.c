/* A client as a binary: copies lines between its standard streams and the socket argv[1]. argv[2], if any, becomes its comm. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

const char banner[] = "client of the attack tests, byte A";

int main(int argc, char **argv) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char block[65536];
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (argc < 2 || banner[0] == 0) return 2;
  if (argc > 2) prctl(PR_SET_NAME, argv[2]);
  strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
  if (connect(s, (struct sockaddr *)&address, sizeof address)) { perror("connect"); return 1; }
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
