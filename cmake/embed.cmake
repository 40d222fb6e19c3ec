# cmake -DINPUT=FILE -DOUTPUT=FILE.c -DNAME=SYMBOL -P embed.cmake: the bytes of a file as NAME[] and NAME_bytes, and
# its SHA-256 as NAME_digest. Nothing but CMake is needed.
file(READ ${INPUT} _hex HEX)
file(SHA256 ${INPUT} _digest)
string(LENGTH "${_hex}" _digits)
math(EXPR _bytes "${_digits} / 2")
string(REGEX REPLACE "(................................)" "\\1\n" _hex "${_hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," _hex "${_hex}")
file(WRITE ${OUTPUT} "/* Made from ${INPUT} by cmake/embed.cmake. */
#include <stddef.h>
extern const unsigned char ${NAME}[];
extern const size_t ${NAME}_bytes;
extern const char ${NAME}_digest[];
const unsigned char ${NAME}[] = {
${_hex}
0};
const size_t ${NAME}_bytes = ${_bytes};
const char ${NAME}_digest[] = \"${_digest}\";
")
