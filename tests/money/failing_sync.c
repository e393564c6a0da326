/* Fails the n-th flush or write of a database's files, once, as a dying disk does: the kernel
   reports an error and says that all is well ever after. Which one is said by `fail_at`, or from
   outside by FAIL_SYNC_AT and FAIL_WRITE_AT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int countdown_sync = 0, countdown_write = 0;

void fail_at(int sync, int write) { countdown_sync = sync; countdown_write = write; }

__attribute__((constructor)) static void from_outside(void) {
    const char *sync = getenv("FAIL_SYNC_AT"), *write = getenv("FAIL_WRITE_AT");
    fail_at(sync ? atoi(sync) : 0, write ? atoi(write) : 0);
}

static int is_ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    const char *name = strstr(path, "gigarouter.db");
    return name && (!strcmp(name, "gigarouter.db") || !strcmp(name, "gigarouter.db-wal"));
}

static int fails(int *countdown, int fd) {
    if (*countdown == 0 || !is_ours(fd) || --*countdown) return 0;
    errno = EIO;
    return 1;
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return fails(&countdown_sync, fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return fails(&countdown_sync, fd) ? -1 : real(fd);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    return fails(&countdown_write, fd) ? -1 : real(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    return fails(&countdown_write, fd) ? -1 : real(fd, data, size, offset);
}
