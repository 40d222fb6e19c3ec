/*
 * consumer.c - a program that knows of Hypura only what pkg-config says.
 */
#include <hypura.h>

#include <stdio.h>

int main(void)
{
    puts(hypura_version());
    return 0;
}
