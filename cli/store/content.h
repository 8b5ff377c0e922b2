/*
 * What an image holds, whatever its format: read through QEMU's own drivers
 *
 *   deskcast ==libnbd, several connections==> qemu-storage-daemon --> image
 *
 * A child qemu-storage-daemon opens the image read-only and exports it on a
 * socket that it inherits; nothing of it has a name in the file system by the
 * time content_open() returns, and it dies with its parent. The program is
 * DESKCAST_QSD, else "qemu-storage-daemon" beside this one, else in PATH.
 *
 * A raw image in a file or on a block device is read without a daemon: its
 * content is its bytes.
 *
 * The image is opened by the blockdev definition given, with formats named by
 * the caller: nothing is probed, and no name in a header is followed unless
 * the definition leaves "backing" or "extents" to the driver.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_CONTENT_H
#define CLI_STORE_CONTENT_H

#include "cli/progress.h"
#include "cli/store/tree-build.h"

#include <gio/gio.h>
#include <json-glib/json-glib.h>

typedef struct Content Content;

/*
 * Definitions for content_open(), children inline; to be freed by
 * json_object_unref().
 *
 * A file or block device. @direct: read from the medium, not from the page
 * cache (O_DIRECT), where the file system can.
 */
JsonObject *content_file_node(const char *path, bool direct);

/*
 * An image of @format ("raw", "qcow2", "vpc", "vhdx", "vmdk", "vdi") in
 * @protocol, with @backing below, which may be NULL: then an image of a format
 * that has backing files is opened as if it had none. Takes both over.
 */
JsonObject *content_format_node(const char *format, JsonObject *protocol,
                                JsonObject *backing);

/* As text, for "json:" names of qemu-img; to be freed */
char *content_node_text(JsonObject *definition);

/*
 * Open it for reading. @definition stays the caller's. NULL with @error. The
 * daemon ends with the thread that calls this.
 */
Content *content_open(JsonObject *definition, GError **error);
void content_close(Content *c);

/* For writing with content_pwrite(), and the good end of that: durable */
Content *content_open_writable(JsonObject *definition, GError **error);
bool content_finish(Content *c, GError **error);

/* An NBD server elsewhere */
typedef struct ContentServer {
    char *socket;               /* path of a Unix socket, or NULL and */
    char *host, *port;
    bool tls;                   /* required; the server's name is checked */
    char *certificates;         /* folder with ca-cert.pem and so on, or NULL */
    char *psk_file;             /* or NULL */
    char *user;                 /* in it, or NULL */
} ContentServer;

/* Names of its exports; to be freed by g_strfreev(). NULL with @error. */
char **content_exports(const ContentServer *server, GError **error);

/*
 * An export of it, read-only. A request without answer fails in 30 s. @server
 * has to last as long: more connections are made when they are needed.
 */
Content *content_connect(const ContentServer *server, const char *export,
                         GError **error);

uint64_t content_size(const Content *c);

#define CONTENT_THREADS         6
#define CONTENT_RUN             (4 * TREE_SPAN)     /* bytes of a request */

/*
 * @data: @bytes of content at @offset, up to CONTENT_RUN. NULL: all zeros,
 * then @bytes may be any number. Both are multiples of TREE_SPAN except at the
 * end; of a range in content_read_ranges() they are what it is. Called by
 * @thread, below CONTENT_THREADS, of several; never twice for a byte. False to
 * stop.
 */
typedef bool (*ContentSink)(void *opaque, unsigned thread, uint64_t offset,
                            uint64_t bytes, const uint8_t *data,
                            GError **error);

/*
 * Read bytes 0 to @size, which may be less than content_size() (a label is
 * left out) but not more. Ranges that the image says are zeros are not read.
 * Stops at the first error. @progress counts @size bytes, or NULL.
 */
bool content_read(Content *c, uint64_t size, ContentSink sink, void *opaque,
                  Progress *progress, GError **error);

/* The same for @n ranges, ascending; nothing is taken as zero unread */
typedef struct ContentRange {
    uint64_t offset, bytes;     /* multiples of 4096 */
} ContentRange;

bool content_read_ranges(Content *c, const ContentRange *ranges, unsigned n,
                         ContentSink sink, void *opaque, Progress *progress,
                         GError **error);

/*
 * Read @bytes, at most CONTENT_RUN, for thread @thread of a sink that works on
 * another Content. @offset is a multiple of 4096, and @buf aligned so, with
 * room for CONTENT_RUN.
 */
bool content_read_at(Content *c, unsigned thread, uint64_t offset,
                     size_t bytes, uint8_t *buf, GError **error);
uint8_t *content_buffer(void);          /* of CONTENT_RUN bytes; free() */

/*
 * For content_read_at() and content_zeros_at(), of an image that is still being
 * written: both wait until all before @end is there. False with @error if it
 * will not be.
 */
typedef bool ContentWait(void *opaque, uint64_t end, GError **error);
void content_wait_for(Content *c, ContentWait *wait, void *opaque);

/*
 * How many bytes from @offset on are zeros for sure, as far as @bytes; 0 if
 * that is not known.
 */
uint64_t content_zeros_at(Content *c, uint64_t offset, uint64_t bytes);

/* A few bytes, by one thread at a time */
bool content_pread(Content *c, uint64_t offset, size_t bytes, void *buf,
                   GError **error);
bool content_pwrite(Content *c, uint64_t offset, size_t bytes,
                    const void *buf, GError **error);
bool content_pzero(Content *c, uint64_t offset, uint64_t bytes,
                   GError **error);

/*
 * Its tree, of the first @size bytes filled up with zeros to a multiple of
 * 4096: the root hash into @root. @salt is hexadecimal. @uuid, text, goes into
 * the superblock; NULL: zeros. @tree_fd: write the tree file there, from its
 * start, and make it durable; -1: the root only.
 */
bool content_tree(Content *c, uint64_t size, const char *salt,
                  const char *uuid, int tree_fd,
                  uint8_t root[VERITY_HASH_BYTES], Progress *progress,
                  GError **error);

/*
 * The same with a TreeBuild of the caller's, which holds a hash of each span
 * afterwards. @size is that of the image the tree was made for.
 */
TreeBuild *content_tree_new(uint64_t size, const char *salt, const char *uuid,
                            GError **error);
bool content_build(Content *c, uint64_t size, TreeBuild *tree, int tree_fd,
                   uint8_t root[VERITY_HASH_BYTES], Progress *progress,
                   GError **error);

/*
 * The same while all is compared with @other, whose @other_size bytes are
 * @size or less, by a part of a block which counts as zeros. False with @error,
 * G_IO_ERROR_INVALID_DATA which tells where, if they differ.
 */
bool content_tree_compared(Content *c, uint64_t size, Content *other,
                           uint64_t other_size, TreeBuild *tree, int tree_fd,
                           uint8_t root[VERITY_HASH_BYTES], Progress *progress,
                           GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Content, content_close)

#endif /* CLI_STORE_CONTENT_H */
