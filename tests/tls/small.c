// small PORT BYTES PROGRAM ARGUMENTS…: listens with a send buffer of BYTES (the connections inherit it) and becomes
// the program, which gets the socket as descriptor 3. So a send is short early, and what TLS has written half stays.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in at = {0};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, bytes = argc > 3 ? atoi(argv[2]) : 0;
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    at.sin_port = htons((unsigned short)(argc > 3 ? atoi(argv[1]) : 0));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (argc < 4 || fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) || bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 500)) {
        perror("small");
        return 1;
    }
    if (fd != 3) dup2(fd, 3), close(fd);
    execv(argv[3], argv + 3);
    perror(argv[3]);
    return 1;
}
