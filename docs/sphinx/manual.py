# SPDX-License-Identifier: GPL-2.0-or-later
"""Manual pages: what they are about stands below their names in HTML, too, as it does
in the NAME of man(1)."""

from docutils import nodes


def add_summary(app, doctree, docname):
    about = app.env.metadata.get(docname, {}).get('summary')
    if about and app.builder.format == 'html':
        text = nodes.paragraph()
        text += nodes.emphasis(about, about)
        doctree.next_node(nodes.title).parent.insert(1, text)


def setup(app):
    app.connect('doctree-resolved', add_summary)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
