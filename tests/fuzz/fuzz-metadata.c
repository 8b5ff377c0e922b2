/*
 * Fuzz our elements in domain metadata, by themselves and in a domain's XML as
 * the hook gets it: what is taken is the same when it is written and read again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/desktop/metadata.h"
#include "fuzz.h"

static void check_version(const WantedVersion *v)
{
    assert(v->number <= INT64_MAX);
    assert(!v->image || v->image[0] == '/');
    assert(!v->root || strlen(v->root) == 64);
    assert(!v->number == !v->size);
}

static void check_desktop(const DesktopMetadata *d)
{
    g_autofree char *text = desktop_metadata_text(d), *same = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(DesktopMetadata) again = desktop_metadata_parse(text, &error);

    assert(d->catalog && d->vdisk && d->model && d->lifetime && d->run);
    assert(d->disk && d->disk[0] == '/' && d->node && d->monitor);
    assert(!d->journal || d->journal[0] == '/');
    check_version(&d->wanted);
    check_version(&d->previous);
    assert(again);
    same = desktop_metadata_text(again);
    assert(!strcmp(text, same));
}

static void check_catalog(const CatalogMetadata *c)
{
    g_autofree char *text = catalog_metadata_text(c), *same = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(CatalogMetadata) again = catalog_metadata_parse(text, &error);

    assert(c->catalog && c->vdisk && c->model && c->lifetime && c->run);
    assert(c->store && c->folder && c->folder[0] == '/');
    assert(again);
    same = catalog_metadata_text(again);
    assert(!strcmp(text, same));
}

static void alone(const char *xml)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(DesktopMetadata) d = desktop_metadata_parse(xml, &error);
    g_autoptr(GError) why = NULL;
    g_autoptr(CatalogMetadata) c = catalog_metadata_parse(xml, &why);

    assert(!d == (error != NULL) && !c == (why != NULL) && !(c && d));
    if (d) {
        check_desktop(d);
    }
    if (c) {
        check_catalog(c);
    }
}

static void in_domain(const char *xml)
{
    g_autoptr(DesktopMetadata) d = NULL;
    g_autoptr(CatalogMetadata) c = NULL;
    g_autoptr(GError) error = NULL;

    if (!metadata_from_domain(xml, &d, &c, &error)) {
        assert(error && !d && !c);
        return;
    }
    assert(!error && !(d && c));
    if (d) {
        check_desktop(d);
    }
    if (c) {
        check_catalog(c);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *xml = g_strndup((const char *)data, size);
    g_autofree char *domain = g_strdup_printf(
        "<domain><metadata>%s</metadata></domain>", xml);

    alone(xml);
    in_domain(xml);
    in_domain(domain);
    return 0;
}
