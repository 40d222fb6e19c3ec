/*
 * name.h - names of models as people type them, and the one form they are kept in.
 *
 *     qwen3                                      qwen3:latest
 *     Qwen3-30B-Q4_K_M.gguf                      Qwen3-30B-Q4_K_M:latest
 *     registry.ollama.ai/library/qwen3:30b       qwen3:30b
 *     https://huggingface.co/user/repo:Q4_K_M    hf.co/user/repo:Q4_K_M
 *
 * Pure text. A name that only has to be found may be anything: it is compared
 * with names that exist and never becomes part of a path. A name that is about
 * to be given goes through hypura_name_check, and only then through
 * hypura_name_stem, whose result stays below whatever folder it is put behind.
 */
#ifndef HYPURA_SERVER_MODELS_NAME_H
#define HYPURA_SERVER_MODELS_NAME_H

#include "hypura.h"

/* Of a whole name with its end, in every form. */
#define HYPURA_NAME_BYTES 384

/* The normal form, with the case as it was; false when the text is empty or too
 * long. Nothing is said about its characters. */
bool hypura_name_normalize(const char *text, char *name);

/* True when both are the same name to people: normal forms, whatever the case. */
bool hypura_name_equal(const char *a, const char *b);

/* True when the normal form `name` continues the normal form `prefix`, its own
 * ":latest" aside, at the end of a word: qwen3:30b begins Qwen3-30B-A3B:latest and
 * hf.co/user/Qwen3-30B:Q4_K_M, but not qwen3:30bx. ':' and '-' and '_' count as
 * the same. */
bool hypura_name_begins(const char *prefix, const char *name);

/* The normal form of a name that something new is to be called. HYPURA_ERR_USAGE
 * unless it is one to five words with '/' between them and a tag, each of letters,
 * digits, '.', '-', '_' and led by a letter or digit, and does not end as files beside a model do. */
hypura_status hypura_name_check(const char *text, char *name, hypura_error *error);

/* Where a checked name lies below the models folder, without an ending:
 * "hf.co/user/repo@Q4_K_M", and "mario" for "mario:latest". */
void hypura_name_stem(const char *name, char *stem);

/* The normal form of what lies there; false when it is too long. */
bool hypura_name_of_stem(const char *stem, char *name);

#endif
