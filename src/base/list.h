/*
 * list.h - things in a list that any of them may leave: a link is the first member of each.
 *
 * The caller holds whatever lock guards the list. A zeroed list is empty.
 */
#ifndef HYPURA_BASE_LIST_H
#define HYPURA_BASE_LIST_H

#include <stdint.h>

typedef struct hypura_link {
    struct hypura_link *next;
    struct hypura_link *previous;
} hypura_link;

typedef struct hypura_list {
    hypura_link *first; /* the one added last */
    uint32_t n;
} hypura_list;

static inline void hypura_list_add(hypura_list *list, hypura_link *link)
{
    *link = (hypura_link){.next = list->first};
    if (link->next) {
        link->next->previous = link;
    }
    list->first = link;
    list->n++;
}

static inline void hypura_list_remove(hypura_list *list, hypura_link *link)
{
    if (link->next) {
        link->next->previous = link->previous;
    }
    if (link->previous) {
        link->previous->next = link->next;
    } else {
        list->first = link->next;
    }
    list->n--;
}

#endif
