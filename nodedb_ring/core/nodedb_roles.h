// Who a thread is, and which ends of shared rings this process holds: the state that a process has one of.
//
// A `static` of a header has one home a module. So one module alone includes this, _claims.pyx.

#ifndef NODEDB_RING_ROLES_H
#define NODEDB_RING_ROLES_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// A number for this thread that no other thread of the process ever has, unlike a pthread id, which the next thread may
// get. A thread keeps it for life, whichever interpreter state it is given.
static uint64_t nodedb_last_token = 0;
static __thread uint64_t nodedb_token = 0;

static inline uint64_t nodedb_thread_token(void) {
    if (__builtin_expect(nodedb_token == 0, 0))
        nodedb_token = __atomic_add_fetch(&nodedb_last_token, 1, __ATOMIC_RELAXED);
    return nodedb_token;
}

// A role is a write lock on one byte of the bus's file. It belongs to the open file description. So it does not go with
// another descriptor that the process closes, and it goes with the process however that ends.
static inline struct flock nodedb_role_lock(short type, uint64_t byte) {
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
}

static inline int nodedb_is_locked(int fd, uint64_t byte) {
    struct flock lock = nodedb_role_lock(F_WRLCK, byte);
    return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

// A forked child shares the description, and would keep the role of a parent that dies. So it closes every one first of
// all, whoever forked. The mutex keeps a fork out of the middle of a claim: a child has none of it, or a descriptor
// that is in the list. A free place in the list holds -1.
enum { NODEDB_ROLES_A_NODE = 64 };

typedef struct nodedb_held {
    int fd[NODEDB_ROLES_A_NODE];
    struct nodedb_held *next;
} nodedb_held;

static nodedb_held *nodedb_roles = NULL;
static pthread_mutex_t nodedb_roles_mutex = PTHREAD_MUTEX_INITIALIZER;

static inline void nodedb_before_fork(void) { pthread_mutex_lock(&nodedb_roles_mutex); }

static inline void nodedb_fork_parent(void) { pthread_mutex_unlock(&nodedb_roles_mutex); }

static inline void nodedb_fork_child(void) {
    for (nodedb_held *held = nodedb_roles; held != NULL; held = held->next)
        for (int i = 0; i < NODEDB_ROLES_A_NODE; i++) {
            if (held->fd[i] >= 0)
                close(held->fd[i]);
            held->fd[i] = -1;
        }
    pthread_mutex_unlock(&nodedb_roles_mutex);
}

static inline int *nodedb_free_place(void) {
    for (nodedb_held *held = nodedb_roles; held != NULL; held = held->next)
        for (int i = 0; i < NODEDB_ROLES_A_NODE; i++)
            if (held->fd[i] < 0)
                return &held->fd[i];
    nodedb_held *more = malloc(sizeof *more);
    if (more == NULL)
        return NULL;
    for (int i = 0; i < NODEDB_ROLES_A_NODE; i++)
        more->fd[i] = -1;
    more->next = nodedb_roles;
    nodedb_roles = more;
    return &more->fd[0];
}

// Opens the file again and locks the byte: the descriptor that holds the role, or minus the errno: -EAGAIN if somebody
// holds it.
static inline int nodedb_acquire_role(int file, uint64_t byte) {
    static int registered = 0; // under the mutex
    struct flock lock = nodedb_role_lock(F_WRLCK, byte);
    char path[32];
    int fd, wrong = 0;
    int *place;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    pthread_mutex_lock(&nodedb_roles_mutex);
    if (!registered) {
        wrong = pthread_atfork(nodedb_before_fork, nodedb_fork_parent, nodedb_fork_child);
        registered = wrong == 0;
    }
    place = wrong == 0 ? nodedb_free_place() : NULL;
    fd = place == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        wrong = wrong != 0 ? wrong : place == NULL ? ENOMEM : errno;
    } else if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
        *place = fd;
    } else {
        wrong = errno == EACCES ? EAGAIN : errno;
        close(fd);
    }
    pthread_mutex_unlock(&nodedb_roles_mutex);
    return wrong == 0 ? fd : -wrong;
}

static inline void nodedb_release_role(int fd) {
    // The lock goes for all copies of the descriptor: a child that was forked just now may not have closed its own.
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    fcntl(fd, F_OFD_SETLK, &all);
    pthread_mutex_lock(&nodedb_roles_mutex);
    for (nodedb_held *held = nodedb_roles; held != NULL; held = held->next)
        for (int i = 0; i < NODEDB_ROLES_A_NODE; i++)
            if (held->fd[i] == fd)
                held->fd[i] = -1;
    close(fd);
    pthread_mutex_unlock(&nodedb_roles_mutex);
}

#endif
