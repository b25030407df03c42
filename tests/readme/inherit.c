// Leaves a listening socket to a program as descriptor 3, as systemd does:
//
//     inherit PORT PROGRAM [ARGUMENTS...]
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (argc < 3) return 2;
    at.sin_port = htons((uint16_t)atoi(argv[1]));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)(const void *)&at, sizeof at) || listen(fd, 512)) return perror("inherit"), 1;
    if (fd != 3 && (dup2(fd, 3) != 3 || close(fd))) return perror("inherit"), 1;
    execvp(argv[2], argv + 2);
    return perror(argv[2]), 1;
}
