# SPDX-License-Identifier: GPL-2.0-or-later
"""How Sphinx makes the manual: scripts/docs runs it."""

import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / 'sphinx'))

project = 'Deskcast'
author = 'Deskcast developers'
project_copyright = author
version = release = re.search(r"version: '([^']+)'",
                              (HERE.parent / 'meson.build').read_text())[1]

extensions = ['sphinx.ext.graphviz', 'manual', 'vdisk_qapi']
exclude_patterns = ['sphinx']
nitpicky = True
smartquotes = False             # they would make a dash of each --option
highlight_language = 'none'

graphviz_output_format = 'svg'
graphviz_dot_args = ['-Gfontname=sans-serif', '-Nfontname=sans-serif', '-Efontname=sans-serif',
                     '-Nfontsize=11', '-Efontsize=10', '-Nshape=box', '-Nstyle=rounded',
                     '-Gbgcolor=transparent']

html_title = f'Deskcast {version}'
html_theme = 'alabaster'
html_theme_options = {
    'description': 'golden desktop images for QEMU desktops',
    'page_width': '1100px',
    'code_font_size': '0.8em',
    'sidebar_width': '240px',
    'fixed_sidebar': False,
    'show_powered_by': False,
    'font_family': 'sans-serif',
    'head_font_family': 'sans-serif',
}
html_sidebars = {'**': ['about.html', 'navigation.html', 'searchbox.html']}
html_copy_source = False
html_show_copyright = False


def summary(page):
    """What a manual page says it is about, in its first lines"""
    found = re.search(r'^:summary: (.+)$', page.read_text(), re.M)
    if not found:
        raise ValueError(f"{page.name}: a line ':summary: what it is about' is needed")
    return found[1]


man_pages = [(f'man/{page.stem}', page.stem, summary(page), '', 1)
             for page in sorted((HERE / 'man').glob('deskcast*.rst'))]
