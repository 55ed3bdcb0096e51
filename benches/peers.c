/* What a reader would write in C, for benches/peers.py: exact LRU in two levels, ways in recency order, a victim carried along;
 * events on many CPUs; and Olken's tree of last uses. Compiled when the benches run. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WAYS1 4
#define SETS1 16
#define WAYS2 12
#define SETS2 128
#define NOTHING UINT64_MAX

static int touch(uint64_t *row, int ways, uint64_t key) {
    uint64_t carry = key;
    for (int way = 0; way < ways; way++) {
        uint64_t old = row[way];
        row[way] = carry;
        if (old == key)
            return 1;
        carry = old;
    }
    return 0;
}

/* `l1` and `l2` begin as all ones; `counts` are hits of both. A key is the page and above 52 bits the context. */
void peer_access(const uint64_t *pages, const uint16_t *contexts, size_t count, uint64_t *l1, uint64_t *l2, uint64_t *counts) {
    uint64_t first = 0, second = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t page = pages[i];
        uint64_t key = contexts ? page | (uint64_t)contexts[i] << 52 : page;
        if (touch(l1 + (page % SETS1) * WAYS1, WAYS1, key))
            first++;
        else
            second += touch(l2 + (page % SETS2) * WAYS2, WAYS2, key);
    }
    counts[0] += first;
    counts[1] += second;
}

struct event {
    uint64_t vpn;
    uint16_t pcid, cpu, pages;
    uint8_t op, flags;
};

/* Loads, stores, fetches, and of the rest INVPCID of everything; `state` has both levels of each CPU. */
void peer_events(const struct event *events, size_t count, uint64_t *state, uint64_t *counts) {
    const size_t size = SETS1 * WAYS1 + SETS2 * WAYS2;
    for (size_t i = 0; i < count; i++) {
        struct event e = events[i];
        uint64_t *l1 = state + e.cpu * size, *l2 = l1 + SETS1 * WAYS1;
        if (e.op > 2) {
            memset(l1, 0xff, size * sizeof *l1);
            continue;
        }
        uint64_t context = e.flags & 1 ? 4096 : e.pcid;
        uint64_t key = e.vpn ^ context << 45;
        if (touch(l1 + (e.vpn % SETS1) * WAYS1, WAYS1, key))
            counts[0]++;
        else
            counts[1] += touch(l2 + (e.vpn % SETS2) * WAYS2, WAYS2, key);
    }
}

/* How often a page was used again after `d` other pages, `found[d]` for d < depth; Olken 1981 over a Fenwick tree of last uses.
 * Returns how many accesses were to pages never seen before. */
uint64_t peer_curve(const uint64_t *pages, size_t count, uint64_t *found, size_t depth) {
    size_t room = 1024, fresh = 0;
    while (room < 2 * count)
        room *= 2;
    uint64_t *keys = malloc(room * sizeof *keys);
    uint32_t *last = calloc(room, sizeof *last), *tree = calloc(count + 1, sizeof *tree);
    memset(keys, 0xff, room * sizeof *keys);
    for (size_t now = 1; now <= count; now++) {
        uint64_t page = pages[now - 1];
        size_t at = (page * 0x9e3779b97f4a7c15u) >> 20 & (room - 1);
        while (keys[at] != NOTHING && keys[at] != page)
            at = (at + 1) & (room - 1);
        if (keys[at] == page) {
            size_t before = last[at], since = 0;
            for (size_t i = now - 1; i; i &= i - 1)
                since += tree[i];
            for (size_t i = before; i; i &= i - 1)
                since -= tree[i];
            if (since < depth)
                found[since]++;
            for (size_t i = before; i <= count; i += i & -i)
                tree[i]--;
        } else {
            keys[at] = page;
            fresh++;
        }
        last[at] = (uint32_t)now;
        for (size_t i = now; i <= count; i += i & -i)
            tree[i]++;
    }
    free(keys);
    free(last);
    free(tree);
    return fresh;
}
