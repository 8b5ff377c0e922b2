/*
 * The desktops of this host, as libvirt has them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "lister.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <libxml/parser.h>
#include <string.h>

#define DESKTOPS_MAX    4096    /* of a host that are looked at */

/* What is listed of a desktop */
typedef struct Entry {
    char *name;
    char *metadata;             /* as text */
    bool running;
    GuestAgent agent;
} Entry;

struct Lister {
    char *uri;

    GMutex lock;                /* of what follows */
    GCond change;
    unsigned wanted, done;      /* number of the last listing */
    GPtrArray *entries;         /* Entry; of the last one that went well */
    bool listed;                /* there was one that went well */
    char *trouble;              /* of the last one, or NULL */
};

#define PATIENCE        5       /* of who has no list at all, as a factor */

static void entry_free(void *data)
{
    Entry *e = data;

    g_free(e->name);
    g_free(e->metadata);
    g_free(e);
}

static void ignore_error(void *opaque, virErrorPtr error)
{
    (void)opaque;
    (void)error;
}

static char *last_error(const char *what)
{
    virErrorPtr last = virGetLastError();

    return g_strdup_printf("%s: %s", what, last && last->message
                           ? last->message : "libvirt says no more");
}

/*
 * Of one that runs it is what it was started as: a master VM that is updated
 * is a desktop then. NULL if there is none of ours.
 */
static char *metadata_of(virDomainPtr domain)
{
    g_autofree char *text = NULL;
    char *of_libvirt = virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT,
                                            METADATA_NAMESPACE, 0);

    text = g_strdup(of_libvirt);
    free(of_libvirt);
    /* libvirt gives the element without its prefix */
    return text && (g_str_has_prefix(text, "<desktop") ||
                    g_str_has_prefix(text, "<" METADATA_PREFIX ":desktop"))
           ? g_steal_pointer(&text) : NULL;
}

static GuestAgent agent_of(virDomainPtr domain)
{
    char *xml = virDomainGetXMLDesc(domain, 0);
    GuestAgent agent = guest_agent_of_xml(xml ? xml : "");

    free(xml);
    return agent;
}

static GPtrArray *list_domains(virConnectPtr conn, char **trouble)
{
    GPtrArray *entries = g_ptr_array_new_with_free_func(entry_free);
    virDomainPtr *domains = NULL;
    int n = virConnectListAllDomains(conn, &domains, 0);

    if (n < 0) {
        *trouble = last_error("libvirt does not list its domains");
        g_ptr_array_unref(entries);
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        char *metadata = entries->len < DESKTOPS_MAX ? metadata_of(domains[i])
                                                     : NULL;

        if (metadata) {
            Entry *e = g_new0(Entry, 1);

            e->name = g_strdup(virDomainGetName(domains[i]));
            e->metadata = metadata;
            e->running = virDomainGetID(domains[i]) != (unsigned)-1;
            e->agent = e->running ? agent_of(domains[i]) : AGENT_UNKNOWN;
            g_ptr_array_add(entries, e);
        }
        virDomainFree(domains[i]);
    }
    free(domains);
    return entries;
}

static void finish(Lister *l, unsigned number, GPtrArray *entries,
                   char *trouble)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&l->lock);

    g_free(l->trouble);
    l->trouble = trouble;
    if (entries) {
        g_ptr_array_unref(l->entries);
        l->entries = entries;
        l->listed = true;
    }
    l->done = number;
    g_cond_broadcast(&l->change);
}

static unsigned wait_for_wish(Lister *l)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&l->lock);

    while (l->wanted == l->done) {
        g_cond_wait(&l->change, &l->lock);
    }
    return l->wanted;
}

/* The connection stays: libvirtd is not started anew for each listing */
static void *lister_thread(void *opaque)
{
    virConnectPtr conn = NULL;
    Lister *l = opaque;

    for (;;) {
        unsigned number = wait_for_wish(l);
        GPtrArray *entries = NULL;
        char *trouble = NULL;

        virResetLastError();
        if (!conn) {
            conn = virConnectOpenReadOnly(l->uri);
        }
        if (conn) {
            entries = list_domains(conn, &trouble);
        } else {
            trouble = last_error("no connection to libvirt");
        }
        if (conn && !entries) {
            virConnectClose(conn);
            conn = NULL;
        }
        finish(l, number, entries, trouble);
    }
    return NULL;
}

Lister *lister_new(const char *uri)
{
    Lister *l = g_new0(Lister, 1);

    /* Both make what they need at the first call, which no thread may be in */
    xmlInitParser();
    g_ascii_strtoull("0", NULL, 10);
    virInitialize();
    virSetErrorFunc(NULL, ignore_error);        /* or it prints them */
    l->uri = g_strdup(uri);
    l->entries = g_ptr_array_new_with_free_func(entry_free);
    g_mutex_init(&l->lock);
    g_cond_init(&l->change);
    g_thread_unref(g_thread_new("lister", lister_thread, l));
    return l;
}

/* What is listed now, with the lock held; false if it is that of before */
static bool wait_for_list(Lister *l, int timeout_ms)
{
    gint64 end = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    unsigned number;

    /* One that hangs is joined: there is never a second one */
    number = l->wanted == l->done ? l->wanted + 1 : l->wanted;
    l->wanted = number;
    g_cond_broadcast(&l->change);
    while (l->done < number) {
        if (!g_cond_wait_until(&l->change, &l->lock, end)) {
            return false;
        }
    }
    return !l->trouble;
}

static int by_name(const void *a, const void *b)
{
    const DesktopSample *x = *(DesktopSample *const *)a;
    const DesktopSample *y = *(DesktopSample *const *)b;

    return strcmp(x->name, y->name);
}

void lister_list(Lister *l, HostSample *s, int timeout_ms)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&l->lock);

    s->libvirt_up = wait_for_list(l, timeout_ms * (l->listed ? 1 : PATIENCE));
    if (!s->libvirt_up) {
        s->libvirt_trouble = g_strdup(l->trouble ? l->trouble
                                                 : "libvirt does not answer");
    }
    for (guint i = 0; i < l->entries->len; i++) {
        const Entry *e = g_ptr_array_index(l->entries, i);
        g_autoptr(GError) error = NULL;
        DesktopSample *d = desktop_sample_new(
            e->name, desktop_metadata_parse(e->metadata, &error), e->running);

        d->agent = e->agent;
        d->trouble = error ? g_strdup(error->message) : NULL;
        g_ptr_array_add(s->desktops, d);
    }
    g_ptr_array_sort(s->desktops, by_name);
}
