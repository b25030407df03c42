// Owns the listening socket, as systemd does, and hands it to each daemon as fd 3: between two daemons the kernel's
// queue holds who connects, so nobody is refused.
//
//     supervisor PROGRAM       prints `port N`; reads lines: `start ARGS…` prints `started PID`; `close` gives the
//                              socket up; the end of stdin ends all. A child's end is told as `exit PID STATUS`.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void start(const char *program, int listener, char *line) {
    char *args[32] = {(char *)program, "--listen", "fd:3"};
    int n = 3;
    for (char *word = strtok(line + 5, " \n"); word && n < 31; word = strtok(NULL, " \n")) args[n++] = word;
    pid_t pid = fork();
    if (!pid) {
        if (dup2(listener, 3) < 0) _exit(126);
        execv(program, args);
        _exit(127);
    }
    printf("started %d\n", (int)pid);
}

static int reap(void) {
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid > 0) printf("exit %d %d\n", (int)pid, WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status));
    return pid > 0;
}

int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof to;
    char line[1000];
    size_t have = 0;
    // 3 is left to the children: the socket itself must not be it.
    int hole = dup(2), listener = socket(AF_INET, SOCK_STREAM, 0);
    if (argc != 2 || bind(listener, (struct sockaddr *)&to, size) || listen(listener, 4096)) return perror("supervisor"), 1;
    getsockname(listener, (struct sockaddr *)&to, &size);
    close(hole);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("port %d\n", ntohs(to.sin_port));
    for (;;) {
        struct pollfd in = {.fd = 0, .events = POLLIN};
        poll(&in, 1, 20);
        while (reap()) {}
        if (!in.revents) continue;
        ssize_t n = read(0, line + have, 1);
        if (n <= 0) return 0;
        if (line[have] != '\n' && have + 2 < sizeof line) { have++; continue; }
        line[have] = 0;
        have = 0;
        if (!strncmp(line, "start", 5)) start(argv[1], listener, line);
        else if (!strcmp(line, "close")) close(listener), puts("closed");
    }
}
