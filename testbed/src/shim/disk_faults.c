/* Makes the disk fail for one process: preloaded into it (LD_PRELOAD), it answers the calls that write and sync with an error while a
   trigger file exists in the folder named by CONCORDAT_FAULT_DIR. No privileges, no mounts, and the service itself is unchanged.

     fsync-error   fsync and fdatasync fail with EIO
     disk-full     writes of files fail with ENOSPC

   Only files whose path begins with CONCORDAT_FAULT_PREFIX are touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int triggered(const char *name, int fd) {
  const char *dir = getenv("CONCORDAT_FAULT_DIR");
  const char *prefix = getenv("CONCORDAT_FAULT_PREFIX");
  char path[4096], link[64];
  if (!dir || !prefix) return 0;
  snprintf(path, sizeof path, "%s/%s", dir, name);
  if (access(path, F_OK) != 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strncmp(path, prefix, strlen(prefix)) == 0;
}

static int fail(int error) {
  errno = error;
  return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) { return triggered("fsync-error", fd) ? fail(EIO) : REAL(fsync)(fd); }

int fdatasync(int fd) { return triggered("fsync-error", fd) ? fail(EIO) : REAL(fdatasync)(fd); }

/* RocksDB may sync a range first; such an error counts as one of the disk, too. */
int sync_file_range(int fd, off64_t offset, off64_t count, unsigned int flags) {
  return triggered("fsync-error", fd) ? fail(EIO) : REAL(sync_file_range)(fd, offset, count, flags);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  return triggered("disk-full", fd) ? fail(ENOSPC) : REAL(write)(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
  return triggered("disk-full", fd) ? fail(ENOSPC) : REAL(pwrite)(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  return triggered("disk-full", fd) ? fail(ENOSPC) : REAL(pwrite64)(fd, bytes, count, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  return triggered("disk-full", fd) ? fail(ENOSPC) : REAL(writev)(fd, parts, count);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
  return triggered("disk-full", fd) ? fail(ENOSPC) : REAL(fallocate)(fd, mode, offset, length);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
  return triggered("disk-full", fd) ? fail(ENOSPC) : REAL(fallocate64)(fd, mode, offset, length);
}

int posix_fallocate(int fd, off_t offset, off_t length) {
  return triggered("disk-full", fd) ? ENOSPC : REAL(posix_fallocate)(fd, offset, length);
}
