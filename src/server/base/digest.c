/*
 * digest.c - see digest.h.
 */
#include "server/base/digest.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <string.h>

/* hypura_digest is libcrypto's own context under another name. */
static EVP_MD_CTX *context(hypura_digest *digest)
{
    return (EVP_MD_CTX *)digest;
}

hypura_digest *hypura_digest_begin(void)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (c != NULL && EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(c);
        c = NULL;
    }
    return (hypura_digest *)c;
}

void hypura_digest_add(hypura_digest *digest, const void *data, size_t bytes)
{
    /* Fails for a context that was not begun alone. */
    (void)EVP_DigestUpdate(context(digest), data, bytes);
}

void hypura_digest_end(hypura_digest *digest, char *hex)
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (digest == NULL) {
        return;
    }
    if (hex != NULL && EVP_DigestFinal_ex(context(digest), bytes, &n) == 1) {
        static const char digits[] = "0123456789abcdef";
        for (unsigned i = 0; i < n; i++) {
            hex[2 * i] = digits[bytes[i] >> 4];
            hex[2 * i + 1] = digits[bytes[i] & 15];
        }
        hex[2 * n] = '\0';
    }
    EVP_MD_CTX_free(context(digest));
}

bool hypura_digest_parse(const char *text, char *hex)
{
    if (strncmp(text, "sha256:", 7) == 0 || strncmp(text, "sha256-", 7) == 0) {
        text += 7;
    }
    size_t n = 0;
    for (; isxdigit((unsigned char)text[n]); n++) {
        if (n == HYPURA_DIGEST_BYTES - 1) {
            return false;
        }
        hex[n] = (char)tolower((unsigned char)text[n]);
    }
    hex[n] = '\0';
    return n == HYPURA_DIGEST_BYTES - 1 && text[n] == '\0';
}
