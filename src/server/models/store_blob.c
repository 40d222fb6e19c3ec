/*
 * store_blob.c - see store.h: files that are sent before a create names them.
 *
 * A blob is written to a staging folder and renamed to .blobs/sha256-HEX once its
 * hash is right: what has that name is whole.
 */
#include "server/models/store_internal.h"

#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct hypura_blob {
    hypura_staging staging;
    int fd;
    uint64_t bytes;
    hypura_digest *digest;
    char wanted[HYPURA_DIGEST_BYTES];
    char written[HYPURA_STORE_PATH_BYTES];
    char final[HYPURA_STORE_PATH_BYTES];
};

hypura_status hypura_store_blob(const hypura_models *models, const char *digest, char *path, hypura_error *error)
{
    char hex[HYPURA_DIGEST_BYTES];
    if (!hypura_digest_parse(digest, hex)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a digest is not sha256: and 64 hexadecimal digits");
    }
    return hypura_store_path(path, "%s" HYPURA_STORE_BLOBS "/sha256-%s", models->folder, hex)
               ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_USAGE, "the path of the models folder is too long");
}

bool hypura_models_has_blob(hypura_models *models, const char *digest)
{
    char path[HYPURA_STORE_PATH_BYTES];
    const int held = hypura_store_hold(models, HYPURA_STORE_BLOBS);
    const bool there =
        held >= 0 && hypura_store_blob(models, digest, path, NULL) == HYPURA_OK && access(path, R_OK) == 0;
    if (there) {
        (void)utimensat(AT_FDCWD, path, NULL, 0);
    }
    hypura_store_let_go(held);
    return there;
}

hypura_status hypura_blob_begin(hypura_models *models, const char *digest, hypura_blob **blob, hypura_error *error)
{
    char final[HYPURA_STORE_PATH_BYTES];
    *blob = NULL;
    hypura_status status = hypura_store_blob(models, digest, final, error);
    if (status != HYPURA_OK) {
        return status;
    }
    hypura_blob *b = calloc(1, sizeof *b);
    if (b == NULL) {
        return hypura_store_out_of_memory(error);
    }
    b->fd = -1;
    (void)hypura_digest_parse(digest, b->wanted);
    memcpy(b->final, final, sizeof b->final);
    status = hypura_staging_begin(models, &b->staging, error);
    if (status == HYPURA_OK) {
        b->digest = hypura_digest_begin();
        const bool fits = hypura_store_path(b->written, "%s/blob", b->staging.path);
        status =
            b->digest == NULL || !fits ? hypura_store_out_of_memory(error) : hypura_store_make_place(b->final, error);
    }
    if (status == HYPURA_OK) {
        b->fd = open(b->written, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        status = b->fd < 0 ? hypura_os_fail_write(errno, b->written, 0, error) : HYPURA_OK;
    }
    if (status != HYPURA_OK) {
        hypura_blob_abandon(b);
        b = NULL;
    }
    *blob = b;
    return status;
}

hypura_status hypura_blob_write(hypura_blob *blob, const void *data, size_t bytes, hypura_error *error)
{
    const char *at = data;
    hypura_digest_add(blob->digest, data, bytes);
    while (bytes > 0) {
        ssize_t n = write(blob->fd, at, bytes);
        if (n < 0 && errno != EINTR) {
            return hypura_os_fail_write(errno, blob->written, blob->bytes + bytes, error);
        }
        n = n < 0 ? 0 : n;
        at += n;
        bytes -= (size_t)n;
        blob->bytes += (uint64_t)n;
    }
    return HYPURA_OK;
}

hypura_status hypura_blob_commit(hypura_blob *blob, hypura_error *error)
{
    char hex[HYPURA_DIGEST_BYTES] = "";
    hypura_status status = HYPURA_OK;
    hypura_digest_end(blob->digest, hex);
    blob->digest = NULL;
    if (strcmp(hex, blob->wanted) != 0) {
        status = hypura_fail(error, HYPURA_ERR_FORMAT, "digest mismatch: expected sha256:%s, got sha256:%s",
                             blob->wanted, hex);
    } else if (fsync(blob->fd) != 0 || rename(blob->written, blob->final) != 0) {
        status = hypura_os_fail_write(errno, blob->final, blob->bytes, error);
    }
    hypura_blob_abandon(blob);
    return status;
}

void hypura_blob_abandon(hypura_blob *blob)
{
    if (blob == NULL) {
        return;
    }
    if (blob->fd >= 0) {
        (void)close(blob->fd);
    }
    hypura_digest_end(blob->digest, NULL);
    hypura_staging_end(&blob->staging);
    free(blob);
}
