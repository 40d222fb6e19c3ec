/*
 * prefix.c - see prefix.h.
 */
#include "server/fleet/prefix.h"

#include "base/clock.h"
#include "base/path.h"
#include "base/thread.h"
#include "os/os.h"
#include "server/base/log.h"
#include "server/dialect/call.h"
#include "server/process/upstream.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATH_CAPACITY 4096
#define MIN_TOKENS    128 /* shorter ones are computed anew as fast as they are read */
#define MAX_STATES    256 /* of one model that are looked at: the newest */
#define MAX_SLOTS     64
#define REST_US       (UINT64_C(1000) * 1000)
#define ASK_US        (UINT64_C(3000) * 1000)  /* the engine answers in that time, or hangs: nobody is to wait for it then */
#define STATE_US      (UINT64_C(30000) * 1000) /* that a state may be under way to the disk, or from there */
#define N_SEEN        64
#define TEMPORARY     "saving" /* how the name of a state begins that is under way */
#define LEFT_OVER_NS  (INT64_C(600) * 1000000000) /* nobody writes to it after STATE_US */

/* A saved file begins with these words: llama.cpp's magic and version, the number of words that follow, then the
 * server's own marker and version, the number of tokens, and the tokens. */
enum { WORD_MAGIC = 0, WORD_MARKER = 3, WORD_N_TOKENS = 5, N_HEAD_WORDS = 6 };
#define STATE_MAGIC UINT32_C(0x67677371)

typedef struct state {
    char name[32]; /* of its file */
    int64_t modified_ns;
    int32_t *tokens;
    size_t n_tokens;
    bool in_engine; /* a slot had it since the engine started */
} state;

struct prefix_session {
    char root[PATH_CAPACITY];
    char folder[PATH_CAPACITY];
    char socket[128];
    uint64_t limit_bytes;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t n_running; /* requests */
    bool dirty;
    bool closing;
    bool stopped;
    uint64_t used_us;
    size_t n_states;
    state states[MAX_STATES];
    int64_t saved_tasks[MAX_SLOTS]; /* the last one of each slot that is on the disk */
    uint64_t seen[N_SEEN];          /* conversations that were looked for */
    size_t n_seen;
    pthread_t saver;
};

/* ---- files ------------------------------------------------------------------------ */

static uint64_t hash(uint64_t seed, const void *data, size_t bytes)
{
    const unsigned char *at = data;
    uint64_t value = seed ? seed : UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++) {
        value = (value ^ at[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
    }
    return value;
}

static bool read_state(const char *path, state *to)
{
    uint32_t head[N_HEAD_WORDS];
    FILE *file = fopen(path, "rbe");
    bool good = file && fread(head, sizeof(head[0]), N_HEAD_WORDS, file) == N_HEAD_WORDS &&
                head[WORD_MAGIC] == STATE_MAGIC && head[WORD_MARKER] == UINT32_MAX &&
                head[WORD_N_TOKENS] < (UINT32_C(1) << 24);
    if (good) {
        to->n_tokens = head[WORD_N_TOKENS];
        to->tokens = malloc((to->n_tokens + 1) * sizeof(*to->tokens));
        good = to->tokens && fread(to->tokens, sizeof(*to->tokens), to->n_tokens, file) == to->n_tokens;
        if (!good) {
            free(to->tokens);
            to->tokens = NULL;
        }
    }
    if (file) {
        fclose(file);
    }
    return good;
}

static bool is_state(const char *name)
{
    const char *end = strrchr(name, '.');
    return end && strcmp(end, ".state") == 0;
}

static void drop_state(prefix_session *session, size_t i, bool file_too)
{
    char path[PATH_CAPACITY];
    if (file_too && hypura_path_join(path, PATH_CAPACITY, session->folder, session->states[i].name)) {
        unlink(path);
    }
    free(session->states[i].tokens);
    session->states[i] = session->states[--session->n_states];
}

static size_t find_oldest(const prefix_session *session)
{
    size_t oldest = 0;
    for (size_t i = 1; i < session->n_states; i++) {
        oldest = session->states[i].modified_ns < session->states[oldest].modified_ns ? i : oldest;
    }
    return oldest;
}

/* Takes it over. Where there are too many the oldest one is not looked at any more; its file stays until the limit. */
static void add_state(prefix_session *session, const state *more)
{
    if (session->n_states == MAX_STATES) {
        const size_t oldest = find_oldest(session);
        if (more->modified_ns < session->states[oldest].modified_ns) {
            free(more->tokens);
            return;
        }
        drop_state(session, oldest, false);
    }
    session->states[session->n_states++] = *more;
}

static void load_states(prefix_session *session)
{
    char path[PATH_CAPACITY];
    DIR *folder = opendir(session->folder);
    for (struct dirent *found; folder && (found = readdir(folder)) != NULL;) {
        state one = {.n_tokens = 0};
        hypura_os_identity identity;
        if (is_state(found->d_name) && strlen(found->d_name) < sizeof(one.name) &&
            hypura_path_join(path, PATH_CAPACITY, session->folder, found->d_name) &&
            hypura_os_identity_of_path(path, &identity) && read_state(path, &one)) {
            snprintf(one.name, sizeof(one.name), "%s", found->d_name);
            one.modified_ns = identity.modified_ns;
            add_state(session, &one);
        }
    }
    if (folder) {
        closedir(folder);
    }
}

/* Those whose files went with the limit. With the lock held. */
static void forget_gone(prefix_session *session)
{
    char path[PATH_CAPACITY];
    for (size_t i = session->n_states; i-- > 0;) {
        if (!hypura_path_join(path, PATH_CAPACITY, session->folder, session->states[i].name) || access(path, F_OK) != 0) {
            drop_state(session, i, false);
        }
    }
}

/* What a process left that was killed while its engine saved. */
static void sweep(const char *path, const char *name, const hypura_os_identity *identity)
{
    struct timespec now;
    if (strncmp(name, TEMPORARY, strlen(TEMPORARY)) == 0 && clock_gettime(CLOCK_REALTIME, &now) == 0 &&
        identity->modified_ns < (int64_t)now.tv_sec * 1000000000 - LEFT_OVER_NS) {
        unlink(path);
    }
}

/* The bytes of all states below root, and the oldest of them. */
static uint64_t survey_files(const char *root, char *oldest)
{
    char path[PATH_CAPACITY];
    uint64_t sum = 0;
    int64_t oldest_ns = 0;
    oldest[0] = '\0';
    DIR *models = opendir(root);
    for (struct dirent *model; models && (model = readdir(models)) != NULL;) {
        char below[PATH_CAPACITY];
        const bool may = model->d_name[0] != '.' && hypura_path_join(below, PATH_CAPACITY, root, model->d_name);
        DIR *folder = may ? opendir(below) : NULL;
        for (struct dirent *found; folder && (found = readdir(folder)) != NULL;) {
            hypura_os_identity identity;
            if (found->d_name[0] == '.' || !hypura_path_join(path, PATH_CAPACITY, below, found->d_name) ||
                !hypura_os_identity_of_path(path, &identity)) {
                continue;
            }
            if (!is_state(found->d_name)) {
                sweep(path, found->d_name, &identity);
                continue;
            }
            sum += identity.bytes;
            if (oldest[0] == '\0' || identity.modified_ns < oldest_ns) {
                oldest_ns = identity.modified_ns;
                snprintf(oldest, PATH_CAPACITY, "%s", path);
            }
        }
        if (folder) {
            closedir(folder);
        }
    }
    if (models) {
        closedir(models);
    }
    return sum;
}

static void keep_limit(const prefix_session *session)
{
    char oldest[PATH_CAPACITY];
    while (survey_files(session->root, oldest) > session->limit_bytes && oldest[0] != '\0' && unlink(oldest) == 0) {
    }
}

bool prefix_folder(const char *root, const hypura_model_entry *entry, char *path, size_t capacity)
{
    const int n = snprintf(path, capacity, "%s/%.32s", root, entry->digest);
    return n > 0 && (size_t)n < capacity && hypura_os_make_folders(path, 0700);
}

/* ---- asking the engine ------------------------------------------------------------------ */

/* The answer where it is one of 200, a new reference; NULL: there is none. */
static json_t *ask(const prefix_session *session, const char *method, const char *path, const json_t *body, uint64_t most_us)
{
    uint64_t end_us = hypura_clock_us() + most_us;
    int code = 0;
    json_t *answer = NULL;
    if (upstream_json(session->socket, method, path, body, upstream_is_late, &end_us, &code, &answer, NULL) == HYPURA_OK &&
        code == 200) {
        return answer;
    }
    json_decref(answer);
    return NULL;
}

/* ---- saving -------------------------------------------------------------------------- */

static size_t common_length(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b)
{
    size_t n = 0;
    while (n < n_a && n < n_b && a[n] == b[n]) {
        n++;
    }
    return n;
}

/* With the lock held: the new file takes its name, then states that it goes on from go. Takes `made` over. */
static bool adopt(prefix_session *session, const char *temporary, state *made)
{
    char path[PATH_CAPACITY];
    hypura_os_identity identity;
    snprintf(made->name, sizeof(made->name), "%016" PRIx64 ".state", hash(0, made->tokens, made->n_tokens * sizeof(int32_t)));
    if (!hypura_path_join(path, PATH_CAPACITY, session->folder, made->name) || rename(temporary, path) != 0 ||
        !hypura_os_identity_of_path(path, &identity)) {
        free(made->tokens);
        return false;
    }
    for (size_t i = session->n_states; i-- > 0;) {
        const state *old = &session->states[i];
        if (common_length(old->tokens, old->n_tokens, made->tokens, made->n_tokens) == old->n_tokens) {
            drop_state(session, i, strcmp(old->name, made->name) != 0);
        }
    }
    made->modified_ns = identity.modified_ns;
    add_state(session, made);
    return true;
}

/* A name of its own: several servers may keep states of one model. */
static bool make_temporary(const prefix_session *session, char *path, size_t capacity)
{
    const int descriptor = hypura_path_join(path, capacity, session->folder, TEMPORARY "XXXXXX") ? mkstemp(path) : -1;
    return descriptor >= 0 && close(descriptor) == 0;
}

/* All that the engine told of is there, and on the drive: what a loss of power leaves out could be read as zeros. The engine
 * does not see what fails when its file is closed. */
static bool is_whole(const char *path, const json_t *answer)
{
    struct stat written;
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    const bool whole = descriptor >= 0 && fstat(descriptor, &written) == 0 &&
                       written.st_size == json_integer_value(json_object_get(answer, "n_written")) && fsync(descriptor) == 0;
    if (descriptor >= 0) {
        close(descriptor);
    }
    return whole;
}

static bool save_slot(prefix_session *session, int slot)
{
    char path[64];
    char temporary[PATH_CAPACITY];
    state made = {.in_engine = true};
    if (!make_temporary(session, temporary, sizeof temporary)) {
        return false;
    }
    json_t *body = json_pack("{s:s}", "filename", hypura_path_name(temporary));
    snprintf(path, sizeof path, "/slots/%d?action=save", slot);
    json_t *answer = ask(session, "POST", path, body, STATE_US);
    bool good = answer && is_whole(temporary, answer) && read_state(temporary, &made);
    json_decref(body);
    json_decref(answer);
    pthread_mutex_lock(&session->lock);
    if (good && !session->stopped && made.n_tokens >= MIN_TOKENS) {
        good = adopt(session, temporary, &made);
    } else {
        free(made.tokens);
    }
    pthread_mutex_unlock(&session->lock);
    unlink(temporary); /* unless it has its name */
    return good;
}

/* By one thread at a time. */
static void save_changed(prefix_session *session)
{
    json_t *slots = ask(session, "GET", "/slots", NULL, ASK_US);
    size_t i;
    const json_t *slot;
    bool any = false;
    json_array_foreach(slots, i, slot)
    {
        const json_t *task = json_object_get(slot, "id_task");
        const bool rests = json_is_false(json_object_get(slot, "is_processing"));
        const json_int_t n_tokens = json_integer_value(json_object_get(slot, "n_prompt_tokens"));
        if (i < MAX_SLOTS && rests && json_is_integer(task) && n_tokens >= MIN_TOKENS &&
            session->saved_tasks[i] != json_integer_value(task)) {
            session->saved_tasks[i] = json_integer_value(task);
            if (save_slot(session, (int)json_integer_value(json_object_get(slot, "id")))) {
                any = true;
            } else {
                server_log(LOG_WARN, "the state of a conversation could not be saved in %s", session->folder);
            }
        }
    }
    json_decref(slots);
    if (any) {
        keep_limit(session);
        pthread_mutex_lock(&session->lock);
        forget_gone(session);
        pthread_mutex_unlock(&session->lock);
    }
}

/* Saves when nothing was asked for a while. */
static void *save_at_rest(void *user)
{
    prefix_session *session = user;
    pthread_mutex_lock(&session->lock);
    while (!session->closing) {
        const uint64_t rested_us = hypura_clock_us() - session->used_us;
        if (session->stopped || !session->dirty || session->n_running > 0) {
            (void)hypura_cond_wait(&session->changed, &session->lock, UINT64_MAX);
        } else if (rested_us < REST_US) {
            (void)hypura_cond_wait(&session->changed, &session->lock, REST_US - rested_us);
        } else {
            session->dirty = false;
            pthread_mutex_unlock(&session->lock);
            save_changed(session);
            pthread_mutex_lock(&session->lock);
        }
    }
    pthread_mutex_unlock(&session->lock);
    return NULL;
}

/* ---- restoring ------------------------------------------------------------------------- */

/* With the lock held. */
static bool any_outside(const prefix_session *session)
{
    for (size_t i = 0; i < session->n_states; i++) {
        if (!session->states[i].in_engine) {
            return true;
        }
    }
    return false;
}

/* What names a conversation: how it begins. Remembered, so that only its first request is looked at. With the lock
 * held. */
static bool is_new(prefix_session *session, const json_t *messages, const char *prompt)
{
    uint64_t value = 0;
    if (prompt) {
        value = hash(0, prompt, strnlen(prompt, 512));
    }
    for (size_t i = 0; i < 2; i++) {
        char *text = json_dumps(json_array_get(messages, i), JSON_COMPACT | JSON_SORT_KEYS);
        value = text ? hash(value, text, strlen(text)) : value;
        free(text);
    }
    for (size_t i = 0; i < N_SEEN; i++) {
        if (session->seen[i] == value) {
            return false;
        }
    }
    session->seen[session->n_seen++ % N_SEEN] = value;
    return true;
}

static json_t *ask_for(const prefix_session *session, const char *path, const json_t *body, const char *wanted)
{
    json_t *answer = ask(session, "POST", path, body, ASK_US);
    json_t *value = json_incref(json_object_get(answer, wanted));
    json_decref(answer);
    return value;
}

/* The tokens of a request as the server will see them; an array, or NULL. */
static json_t *tokens_of(const prefix_session *session, const json_t *body, const char *prompt)
{
    json_t *text = prompt ? json_string(prompt) : ask_for(session, "/apply-template", body, "prompt");
    json_t *question =
        text ? json_pack("{s:o, s:b, s:b}", "content", text, "add_special", 1, "parse_special", 1) : NULL;
    json_t *tokens = question ? ask_for(session, "/tokenize", question, "tokens") : NULL;
    json_decref(question);
    return tokens;
}

static size_t common_tokens(const state *saved, const json_t *tokens)
{
    size_t n = 0;
    while (n < saved->n_tokens && n < json_array_size(tokens) &&
           json_integer_value(json_array_get(tokens, n)) == saved->tokens[n]) {
        n++;
    }
    return n;
}

/* With the lock held: the state that shares most with the tokens, unless a slot has it or one as good. NULL: none. */
static state *choose(prefix_session *session, const json_t *tokens)
{
    state *best = NULL;
    size_t most = MIN_TOKENS - 1;
    for (size_t i = 0; i < session->n_states; i++) {
        const size_t n = common_tokens(&session->states[i], tokens);
        if (n > most || (n == most && best && session->states[i].in_engine)) {
            most = n;
            best = &session->states[i];
        }
    }
    return best && !best->in_engine ? best : NULL;
}

/* A slot at rest: one that was not used yet, else the one that holds least. -1 when all work. */
static int free_slot(const prefix_session *session)
{
    json_t *slots = ask(session, "GET", "/slots", NULL, ASK_US);
    size_t i;
    const json_t *slot;
    int found = -1;
    json_int_t least = INT64_MAX;
    json_array_foreach(slots, i, slot)
    {
        const json_int_t n = json_integer_value(json_object_get(slot, "n_prompt_tokens"));
        if (json_is_false(json_object_get(slot, "is_processing")) && n < least) {
            least = n;
            found = (int)json_integer_value(json_object_get(slot, "id"));
        }
    }
    json_decref(slots);
    return found;
}

static void restore(prefix_session *session, const char *name)
{
    char path[64];
    const uint64_t begin_us = hypura_clock_us();
    const int slot = free_slot(session);
    json_t *body = json_pack("{s:s}", "filename", name);
    snprintf(path, sizeof path, "/slots/%d?action=restore", slot);
    json_t *answer = slot >= 0 ? ask(session, "POST", path, body, STATE_US) : NULL;
    server_log(LOG_DEBUG, "conversation %s: %s after %.1f ms", name, answer ? "restored" : "not restored",
               (double)(hypura_clock_us() - begin_us) / 1e3);
    json_decref(body);
    json_decref(answer);
}

/* Whose prompts prefix_restore knows how to find. */
static bool is_known(const char *path)
{
    const call_kind kind = call_of(path)->kind;
    return kind == CALL_CHAT || kind == CALL_COMPLETIONS || kind == CALL_COMPLETION;
}

void prefix_restore(prefix_session *session, const char *path, const json_t *body)
{
    if (!session) {
        return;
    }
    const json_t *messages = json_object_get(body, "messages");
    const char *prompt = json_string_value(json_object_get(body, "prompt"));
    char name[sizeof(session->states[0].name)] = "";
    pthread_mutex_lock(&session->lock);
    session->n_running++;
    const bool look = !session->stopped && is_known(path) && (json_is_array(messages) || prompt) && any_outside(session) &&
                      is_new(session, messages, prompt);
    pthread_mutex_unlock(&session->lock);
    if (!look) {
        return;
    }
    json_t *tokens = tokens_of(session, body, messages ? NULL : prompt);
    pthread_mutex_lock(&session->lock);
    state *chosen = tokens && !session->stopped ? choose(session, tokens) : NULL;
    if (chosen) {
        chosen->in_engine = true;
        memcpy(name, chosen->name, sizeof name);
    }
    pthread_mutex_unlock(&session->lock);
    json_decref(tokens);
    if (name[0] != '\0') {
        restore(session, name);
    }
}

void prefix_stop(prefix_session *session)
{
    if (session) {
        pthread_mutex_lock(&session->lock);
        session->stopped = true;
        pthread_mutex_unlock(&session->lock);
    }
}

void prefix_used(prefix_session *session)
{
    if (!session) {
        return;
    }
    pthread_mutex_lock(&session->lock);
    session->n_running--;
    session->dirty = true;
    session->used_us = hypura_clock_us();
    pthread_cond_signal(&session->changed);
    pthread_mutex_unlock(&session->lock);
}

/* ---- opening and closing ------------------------------------------------------------------ */

static void free_session(prefix_session *session)
{
    while (session->n_states > 0) {
        drop_state(session, 0, false);
    }
    pthread_cond_destroy(&session->changed);
    pthread_mutex_destroy(&session->lock);
    free(session);
}

prefix_session *prefix_open(const char *root, uint64_t limit_bytes, const char *folder, const char *socket)
{
    prefix_session *session = calloc(1, sizeof(*session));
    if (!session) {
        return NULL;
    }
    snprintf(session->root, sizeof(session->root), "%s", root);
    snprintf(session->folder, sizeof(session->folder), "%s", folder);
    snprintf(session->socket, sizeof(session->socket), "%s", socket);
    session->limit_bytes = limit_bytes;
    for (size_t i = 0; i < MAX_SLOTS; i++) {
        session->saved_tasks[i] = -1;
    }
    pthread_mutex_init(&session->lock, NULL);
    hypura_cond_init(&session->changed);
    load_states(session);
    if (pthread_create(&session->saver, NULL, save_at_rest, session) != 0) {
        free_session(session);
        return NULL;
    }
    return session;
}

void prefix_close(prefix_session *session)
{
    if (!session) {
        return;
    }
    hypura_thread_end(session->saver, &session->lock, &session->changed, &session->closing);
    if (session->dirty && !session->stopped) {
        save_changed(session);
    }
    free_session(session);
}
