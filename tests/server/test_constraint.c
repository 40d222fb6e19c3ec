/* What an answer has to be, found in the requests of each API. */
#include "server/endpoint/constraint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

#define SCHEMA "{\"type\":\"object\"}"

static void it_is_found_wherever_it_may_be(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *found; /* NULL: nothing */
    } cases[] = {
        {"{\"grammar\":\"root ::= x\"}", "{\"grammar\":\"root ::= x\"}"},
        {"{\"json_schema\":" SCHEMA "}", "{\"json_schema\":" SCHEMA "}"},
        {"{\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":" SCHEMA "}}}", "{\"json_schema\":" SCHEMA "}"},
        {"{\"response_format\":{\"type\":\"json_object\",\"schema\":" SCHEMA "}}", "{\"json_schema\":" SCHEMA "}"},
        {"{\"text\":{\"format\":{\"type\":\"json_schema\",\"schema\":" SCHEMA "}}}", "{\"json_schema\":" SCHEMA "}"},
        {"{\"response_format\":{\"type\":\"json_object\"}}", NULL},
        {"{\"response_format\":{\"type\":\"text\"},\"grammar\":\"\"}", NULL},
        {"{\"text\":\"words\",\"grammar\":null,\"json_schema\":[]}", NULL},
        {"[]", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *body = json_loads(cases[i].body, 0, NULL);
        json_t *found = constraint_of(body);
        json_t *wanted = cases[i].found ? json_loads(cases[i].found, 0, NULL) : NULL;
        if (wanted ? !json_equal(found, wanted) : found != NULL) {
            char *text = json_dumps(found, 0);
            fail_msg("%s: %s", cases[i].body, text);
        }
        json_decref(wanted);
        json_decref(found);
        json_decref(body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_is_found_wherever_it_may_be)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
