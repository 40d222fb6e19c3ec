/* `hypura run` with pictures and sound: which files are shown, with which projector, and what is left of the text. */
#include "driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEE "run", "moe.gguf", "--mmproj", "p.gguf"

static void write_text(const char *name, const char *text)
{
    driver_write(name, text, strlen(text));
}

static int make_files(void **state)
{
    const int made = driver_setup(state);
    char path[4200];
    write_text("a.png", "A");
    write_text("b c.JPG", "B");
    write_text("s.wav", "S");
    write_text("see.gguf", "");
    snprintf(path, sizeof path, "%s/folder.png", driver_folder);
    return made != 0 ? made : mkdir(path, 0700);
}

static void expect(const char *const *words, const char *input, int code, const char *output, const char *error)
{
    process run = driver_run(words, input, NULL);
    driver_expect(&run, code, output, error);
    driver_clear(&run);
}

#define EXPECT(code, output, error, ...) expect((const char *[]){__VA_ARGS__, NULL}, NULL, code, output, error)

static void files_are_shown_in_their_order(void **state)
{
    (void)state;
    EXPECT(0, "[1] <a.png:A><s.wav:S>what\n", "projector  p.gguf", SEE, "what", "--image", "a.png", "--audio", "s.wav");
    EXPECT(0, "[1] <a.png:A>what\n", NULL, "run", "moe.gguf", "-mm", "p.gguf", "-p", "what", "--image", "a.png");
    EXPECT(1, NULL, "cannot open none.png: No such file", SEE, "what", "--image", "none.png");
    EXPECT(1, NULL, "cannot read folder.png: Is a directory", SEE, "what", "--image", "folder.png");
}

static void a_prompt_names_files(void **state)
{
    (void)state;
    static const struct {
        const char *prompt;
        const char *output;
    } cases[] = {
        {"what is ./a.png?", "[1] <./a.png:A>what is ?\n"},
        {"a.png", "[1] <a.png:A>\n"},
        {"(a.png) and './b c.JPG' or s.wav.", "[1] <a.png:A><./b c.JPG:B><s.wav:S>() and  or .\n"},
        {"./b\\ c.JPG what?", "[1] <./b c.JPG:B>what?\n"},
        {"\"b c.JPG\"\nsay", "[1] <b c.JPG:B>say\n"},
        {"a.png a.png", "[1] <a.png:A><a.png:A>\n"},
        /* These are text. */
        {"a.pngx", "[1] a.pngx\n"},
        {"xa.png", "[1] xa.png\n"},
        {"none.png and folder.png", "[1] none.png and folder.png\n"},
        {"b c.JPG", "[1] b c.JPG\n"},
        {"'b c.JPG", "[1] 'b c.JPG\n"},
        {".png /.png ./", "[1] .png /.png ./\n"},
        {"a.png-b a.png_ moe.gguf", "[1] a.png-b a.png_ moe.gguf\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        process run = RUN(SEE, cases[i].prompt);
        if (run.code != 0 || strcmp(run.output, cases[i].output) != 0) {
            fail_msg("'%s': %d '%s' %s", cases[i].prompt, run.code, run.output, run.error);
        }
        driver_clear(&run);
    }
    EXPECT(0, "[1] <s.wav:S><a.png:A>what\n", "(shown: a.png)", SEE, "what a.png", "--image", "s.wav");
    /* Not what a file or a pipe holds, and not what is raw. */
    write_text("prompt.txt", "what is a.png?");
    EXPECT(0, "[1] what is a.png?\n", NULL, SEE, "--prompt-file", "prompt.txt");
    expect((const char *[]){SEE, NULL}, "what is a.png?", 0, "[1] what is a.png?\n", NULL);
    EXPECT(0, "[1] a.png\n", NULL, "run", "moe.gguf", "--raw", "-p", "a.png");
}

static void the_projector_is_found(void **state)
{
    (void)state;
    EXPECT(0, "[1] <a.png:A>what\n", "projector  mmproj-see.gguf", "run", "see.gguf", "what", "--image", "a.png");
    EXPECT(0, "[1] <a.png:A>\n", "projector  mario.mmproj.gguf", "run", "mario", "a.png");
    process run = RUN("run", "mario", "what"); /* nothing is shown: it is not loaded */
    driver_expect(&run, 0, "[1] what\n", NULL);
    assert_null(strstr(run.error, "projector"));
    driver_clear(&run);
    EXPECT(2, NULL, "moe.gguf has no projector", "run", "moe.gguf", "what", "--image", "a.png");
    EXPECT(0, "[1] see a.png\n", "the model has no projector to show it with", "run", "moe.gguf", "see a.png");
    static const char *const excluded[][3] = {{"--raw", NULL, NULL}, {"--draft", "moe.gguf", NULL}, {"--spec-type", "ngram-mod", NULL}};
    for (size_t i = 0; i < sizeof excluded / sizeof *excluded; i++) {
        EXPECT(2, NULL, "exclude each other", SEE, "what", excluded[i][0], excluded[i][1]);
    }
    EXPECT(2, NULL, "--server and --mmproj exclude", SEE, "what", "--server", "http://127.0.0.1:9");
}

/* What belongs to a name comes along. */
static void the_adapter_of_a_name_is_applied(void **state)
{
    (void)state;
    EXPECT(0, "[1] what\n", "adapter    mario.adapter.gguf, scale 1", "run", "mario", "what");
    process run = RUN("run", "mario", "what", "--lora", "a.gguf:0.5");
    const char *own = strstr(run.error, "adapter    mario.adapter.gguf, scale 1");
    const char *second = strstr(run.error, "adapter    mario.adapter-2.gguf, scale 1");
    const char *given = strstr(run.error, "adapter    a.gguf, scale 0.5");
    driver_expect(&run, 0, "[1] what\n", NULL);
    assert_true(own && second && given && own < second && second < given);
    driver_clear(&run);
    EXPECT(2, NULL, "9: 8 at most", "run", "mario", "what", "--lora", "a,b,c,d,e,f,g,h");
    EXPECT(0, "architecture", NULL, "inspect", "mario"); /* the file alone */
    EXPECT(1, NULL, "option --draft: mario has an adapter (LoRA), which is not applied here", "run", "moe.gguf", "what", "--draft",
           "mario");
}

/* As `ollama run` does; the command line goes before. */
static void what_a_model_was_made_with_counts(void **state)
{
    (void)state;
    EXPECT(0, "system Be brief. grammar (null) schema (null) template {{ x }} system: Be brief.; user: a; assistant: b; frequency 0.00 "
              "presence 0.50 stop 'END' temp 0.25 top_p 0.50 min_p 0.12 top_k 5 seed 7 max 0 raw 0\n",
           "(made was made with parameters that run has not: mirostat)", "run", "made", "options");
    EXPECT(0, "system Long. ", "made with  ", "run", "made", "options", "--system", "Long.", "--temp", "0.5");
    EXPECT(0, "temp 0.50 top_p 0.50", NULL, "run", "made", "options", "--temp", "0.5", "--seed", "1");
    EXPECT(0, "seed other", NULL, "run", "made", "options", "--seed", "1");
    EXPECT(0, "stop 'x' temp", NULL, "run", "made", "options", "--stop", "x");
    process run = RUN("run", "made", "options", "--raw");
    driver_expect(&run, 0, "temp 0.25", NULL);
    assert_null(strstr(run.output, "system"));
    assert_null(strstr(run.output, "user: a"));
    driver_clear(&run);
    EXPECT(1, NULL, "made-badly was made with a parameter top_k that cannot be used", "run", "made-badly", "options");
    /* A conversation that is kept begins with it, and has it then. */
    EXPECT(0, "[1] one\n", NULL, "run", "made", "--history", "made.json", "-p", "one");
    json_t *messages = json_loads(driver_read("made.json"), 0, NULL);
    assert_int_equal(json_array_size(messages), 5);
    json_decref(messages);
    EXPECT(0, "system: Be brief.; user: a; assistant: b; user: one; assistant: [1] one; ", NULL, "run", "made", "--history", "made.json",
           "-p", "options");
    EXPECT(2, NULL, "--system is of a conversation that begins", "run", "made", "--history", "made.json", "-p", "options", "--system", "x");
}

static void conversations_show(void **state)
{
    (void)state;
    expect((const char *[]){SEE, "-i", "--image", "a.png", NULL}, "what is it?\nand s.wav?\nwell\n", 0,
           "[1] <a.png:A>what is it?\n[2] <s.wav:S>and ?\n[3] well\n", "(shown: s.wav)");
    /* One that was not answered is shown again. */
    expect((const char *[]){SEE, "-i", "--image", "a.png", NULL}, "too long\nwell s.wav\n", 0, "[2] <a.png:A><s.wav:S>well\n",
           "the prompt has 9999 tokens");
    expect((const char *[]){SEE, "--history", "h.json", "-p", "it a.png", NULL}, NULL, 0, "<a.png:A>it", NULL);
    json_t *messages = json_loads(driver_read("h.json"), 0, NULL);
    const json_t *said = json_array_get(messages, 0);
    assert_string_equal(json_string_value(json_object_get(said, "content")), "it");
    const char *path = json_string_value(json_array_get(json_object_get(said, "images"), 0));
    assert_true(path && path[0] == '/' && strstr(path, "/a.png"));
    json_decref(messages);
    expect((const char *[]){SEE, "--history", "h.json", "-p", "options", NULL}, NULL, 0, "/a.png:A>user: it; assistant: [1]", NULL);
    EXPECT(2, NULL, "moe.gguf has no projector", "run", "moe.gguf", "--history", "h.json", "-p", "more");
    write_text("h.json", "[{\"role\":\"user\",\"content\":\"a\",\"images\":[\"gone.png\"]}]");
    EXPECT(1, NULL, "h.json: message 1: cannot open gone.png", SEE, "--history", "h.json", "-p", "more");
    write_text("h.json", "[{\"role\":\"user\",\"content\":\"a\",\"images\":[1]}]");
    EXPECT(1, NULL, "h.json: message 1: \"images\" has to be an array of paths", SEE, "--history", "h.json", "-p", "more");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_shown_in_their_order),   cmocka_unit_test(a_prompt_names_files),
        cmocka_unit_test(the_projector_is_found),           cmocka_unit_test(conversations_show),
        cmocka_unit_test(the_adapter_of_a_name_is_applied), cmocka_unit_test(what_a_model_was_made_with_counts),
    };
    return driver_main(argc, argv) ? cmocka_run_group_tests(tests, make_files, driver_teardown) : 2;
}
