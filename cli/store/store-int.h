/*
 * What the files of the store share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_STORE_INT_H
#define CLI_STORE_STORE_INT_H

#include "cli/store/store.h"

/*
 * Where images are. An image that @remove does not find is no error; all
 * others are false with @error.
 */
typedef struct ImageOps {
    /* What the image of a version is called; @format it has */
    char *(*name)(const Manifest *m, const Version *v, const char **format);
    /* Can a version of a valid manifest be here? */
    bool (*check)(const Version *v, GError **error);
    /* Empty, v->size bytes and the label's, over the parent's; durable */
    bool (*create)(const Store *s, const Manifest *m, const Version *v,
                   GError **error);
    bool (*size)(const Store *s, const Manifest *m, const Version *v,
                 uint64_t *bytes, GError **error);
    /* Cut it down to @bytes, durably */
    bool (*cut)(const Store *s, const Manifest *m, const Version *v,
                uint64_t bytes, GError **error);
    /*
     * Keep writers away, or from what will be read as sealed, for as long as
     * *@hold is not closed, if it is not -1. G_IO_ERROR_BUSY while there is one.
     */
    bool (*hold)(const Store *s, const Manifest *m, const Version *v,
                 int *hold, GError **error);
    /* What was written is durable; with @sealed nobody can write any more */
    bool (*settle)(const Store *s, const Manifest *m, const Version *v,
                   bool sealed, GError **error);
    bool (*remove)(const Store *s, const char *vdisk, const char *image,
                   GError **error);
    /* The blockdev definition of the image */
    JsonObject *(*chain)(const Store *s, const Manifest *m, const Version *v,
                         unsigned flags);
    /* What merging needs, one of the two: a file ".new-IMAGE" with the same
     * content, and no parent; */
    bool (*flatten)(const Store *s, const Manifest *m, const Version *v,
                    GError **error);
    /* or the same as an image @name, sealed */
    bool (*copy_whole)(const Store *s, const Version *v, const char *name,
                       GError **error);
} ImageOps;

extern const ImageOps store_files;
extern const ImageOps store_rbd;

struct Store {
    char *folder;
    int fd;                     /* of the folder */
    int vdisks;                 /* of the folder of that name */
    int lock;                   /* -1: for reading */
    char *uuid;
    const ImageOps *images;
    char *pool, *conf, *user;   /* rbd; the last two may be NULL */
};

/* store-lock.c: descriptor of the lock, or -1 with @error */
int store_lock(int folder, const char *path, GError **error);

/* Who changes the store now, as text; NULL if nobody does */
char *store_lock_holder(const Store *s);

/* The folder of @vdisk; -1 with @error */
int store_vdisk_folder(const Store *s, const char *vdisk, GError **error);

/* Before a manifest has @v: all it is made of is durable, read-only if sealed */
bool store_settle_version(Store *s, const Manifest *m, const Version *v,
                          GError **error);

/* Has nobody changed it since, although we have the lock? NFS may lose that. */
bool store_is_current(const Store *s, const Manifest *m);

/* store-tidy.c: remove what was made for nothing; errors are passed over */
void store_tidy(Store *s);

/* Remove the folder @name of vdisks/, ".old-…", and what it names */
bool store_remove_folder(Store *s, const char *name, GError **error);

/* Tell people that files that nobody needs could not be deleted */
void store_note_left(const GError *error);

static inline uint64_t version_image_bytes(const Version *v)
{
    return v->size + (v->label ? 4096 : 0);
}

/* Bytes of a qcow2 file as its header has them, or of a raw one */
bool store_file_size(const char *path, const char *format, uint64_t *bytes,
                     GError **error);

/* image-lock.c: QEMU's image locks. -1 with @error, BUSY if it is written to */
int image_lock_writers_out(const char *path, GError **error);

/* Does a QEMU have it open, here or by NFS? What is no file, nobody has. */
bool image_lock_is_read(const char *path);
bool image_lock_is_written(const char *path);

/* How many do, as far as it can be told: 0, or 1 if nothing more is known */
unsigned image_lock_readers(const char *path);

/*
 * spawn.c: run a program to its end; it dies with us. What it printed into
 * *@out if that is not NULL. False with @error, what it complained of.
 */
bool spawn_run(const char *const *argv, char **out, GError **error);

#endif /* CLI_STORE_STORE_INT_H */
