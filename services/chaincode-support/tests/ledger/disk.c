/* A disk that fails when it is told to, below whatever writes to it: for LD_PRELOAD.

   DISK_FOLDER   only files below it are concerned
   DISK_CONTROL  a file of one byte, looked at each time: 'w' writes fail with EIO, 'f' the disk is
                 full (ENOSPC), 's' syncs fail with EIO, 'l' the disk lies: it says that it has
                 synced and has not; anything else lets all through
   DISK_JOURNAL  if set, each change is noted there before it is made, and each sync once it is done
                 or has failed, so that a power cut can be acted out: what no sync has followed is
                 lost, and so is what a failed one left, for the system takes it for written

   A record of the journal: kind, lengths of path, of the bytes before and of those written, offset
   and the file's size before, 64 bits each; then path, bytes before, bytes written. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITTEN = 1, TRUNCATED = 2, SYNCED = 3, FORGOTTEN = 4 };

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_ftruncate)(int, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static const char *folder;
static const volatile char *control;
static int journal = -1;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    folder = getenv("DISK_FOLDER");
    const char *path = getenv("DISK_CONTROL");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *mapped = mmap(NULL, 1, PROT_READ, MAP_SHARED, file, 0);
        control = mapped == MAP_FAILED ? NULL : mapped;
        close(file);
    }
    path = getenv("DISK_JOURNAL");
    if (path)
        journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* Whether the file is on this disk; gives its path. */
static int ours(int file, char path[PATH_MAX]) {
    if (!folder)
        return 0;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    size_t prefix = strlen(folder);
    if (size <= (ssize_t)prefix)
        return 0;
    path[size] = 0;
    return !strncmp(path, folder, prefix) && path[prefix] == '/';
}

static int fails(char how, int error) {
    if (!control || *control != how)
        return 0;
    errno = error;
    return 1;
}

static void note(uint64_t kind, char *path, off64_t offset, off64_t size, void *before, size_t had,
                 const void *written, size_t count) {
    uint64_t head[] = {kind, strlen(path), had, count, (uint64_t)offset, (uint64_t)size};
    struct iovec parts[] = {{head, sizeof head},
                            {path, strlen(path)},
                            {before, had},
                            {(void *)written, count}};
    if (writev(journal, parts, 4) < 0)
        abort();
}

/* Note what is about to be changed from one offset to another. */
static void note_change(int file, char *path, uint64_t kind, off64_t from, off64_t to,
                        const void *written, size_t count) {
    struct stat64 was;
    if (fstat64(file, &was))
        abort();
    off64_t end = to < was.st_size ? to : was.st_size;
    size_t had = end > from ? (size_t)(end - from) : 0;
    void *before = malloc(had + 1);
    if (!before || pread64(file, before, had, from) != (ssize_t)had)
        abort();
    note(kind, path, from, was.st_size, before, had, written, count);
    free(before);
}

static int refuses_writes(void) { return fails('w', EIO) || fails('f', ENOSPC); }

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    char path[PATH_MAX];
    if (!ours(file, path))
        return real_pwrite(file, bytes, count, offset);
    if (refuses_writes())
        return -1;
    if (journal < 0)
        return real_pwrite(file, bytes, count, offset);
    pthread_mutex_lock(&turn);
    note_change(file, path, WRITTEN, offset, offset + (off64_t)count, bytes, count);
    ssize_t done = real_pwrite(file, bytes, count, offset);
    pthread_mutex_unlock(&turn);
    return done;
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    return pwrite64(file, bytes, count, offset);
}

ssize_t write(int file, const void *bytes, size_t count) {
    char path[PATH_MAX];
    if (!ours(file, path))
        return real_write(file, bytes, count);
    if (refuses_writes())
        return -1;
    if (journal < 0)
        return real_write(file, bytes, count);
    pthread_mutex_lock(&turn);
    off64_t offset = lseek64(file, 0, SEEK_CUR);
    note_change(file, path, WRITTEN, offset, offset + (off64_t)count, bytes, count);
    ssize_t done = real_write(file, bytes, count);
    pthread_mutex_unlock(&turn);
    return done;
}

int ftruncate64(int file, off64_t size) {
    char path[PATH_MAX];
    if (!ours(file, path))
        return real_ftruncate(file, size);
    if (refuses_writes())
        return -1;
    if (journal < 0)
        return real_ftruncate(file, size);
    pthread_mutex_lock(&turn);
    note_change(file, path, TRUNCATED, size, INT64_MAX, NULL, 0);
    int done = real_ftruncate(file, size);
    pthread_mutex_unlock(&turn);
    return done;
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

static int sync_file(int file, int (*real)(int)) {
    char path[PATH_MAX];
    if (!ours(file, path))
        return real(file);
    if (fails('s', EIO)) {
        if (journal >= 0)
            note(FORGOTTEN, path, 0, 0, NULL, 0, NULL, 0);
        errno = EIO;
        return -1;
    }
    if (fails('l', 0))
        return 0;
    int done = real(file);
    if (journal >= 0 && !done)
        note(SYNCED, path, 0, 0, NULL, 0, NULL, 0);
    return done;
}

int fsync(int file) { return sync_file(file, real_fsync); }

int fdatasync(int file) { return sync_file(file, real_fdatasync); }
